ephemeral "entente_secret" "one" {}
