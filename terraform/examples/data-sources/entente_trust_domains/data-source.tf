data "entente_trust_domains" "all" {}
