# The cluster of asia.example.org invites, and that of sa.example.org accepts, in one apply.
provider "entente" {
  alias  = "asia"
  socket = "/run/entente/asia/admin.sock"
}

provider "entente" {
  alias  = "sa"
  socket = "/run/entente/sa/admin.sock"
}

ephemeral "entente_secret" "pair" {}

resource "entente_federation_invitation" "sa" {
  provider             = entente.asia
  trust_domain         = "asia.example.org"
  foreign_trust_domain = "sa.example.org"
  approved             = true
  secret_wo            = ephemeral.entente_secret.pair.value
}

resource "entente_federation_agreement" "asia" {
  provider     = entente.sa
  trust_domain = "asia.example.org"
  approve      = true
  token_wo = provider::entente::invitation_token(
    entente_federation_invitation.sa.public_part, ephemeral.entente_secret.pair.value
  )
}
