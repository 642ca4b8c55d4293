ephemeral "entente_jwt_svid" "ci" {
  spiffe_id = "spiffe://eu.example.org/ci"
  audience  = ["artifacts.example.org"]
}
