ephemeral "entente_x509_svid" "ci" {
  spiffe_id = "spiffe://eu.example.org/ci"
  ttl       = "10m"
}
