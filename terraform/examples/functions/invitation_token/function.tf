ephemeral "entente_secret" "invited" {}

locals {
  token = provider::entente::invitation_token(
    entente_federation_invitation.us.public_part, ephemeral.entente_secret.invited.value
  )
}
