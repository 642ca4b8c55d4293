ephemeral "entente_secret" "us" {}

resource "entente_federation_invitation" "us" {
  trust_domain         = "eu.example.org"
  foreign_trust_domain = "us.example.org"
  approved             = true
  secret_wo            = ephemeral.entente_secret.us.value
}
