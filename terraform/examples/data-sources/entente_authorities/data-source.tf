data "entente_authorities" "shop" {
  trust_domain = "shop.example.org"
}
