data "entente_trust_domain" "shop" {
  trust_domain = "shop.example.org"
}
