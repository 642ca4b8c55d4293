data "entente_bundle" "us" {
  trust_domain = "us.example.org"
}
