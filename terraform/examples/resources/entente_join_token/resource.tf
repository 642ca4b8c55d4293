ephemeral "entente_secret" "eu_2" {}

resource "entente_join_token" "eu_2" {
  member_id    = "eu-2"
  auto_approve = true
  ttl          = "1h"
  secret_wo    = ephemeral.entente_secret.eu_2.value
}
