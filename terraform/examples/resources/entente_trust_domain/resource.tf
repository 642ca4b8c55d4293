resource "entente_trust_domain" "shop" {
  trust_domain  = "shop.example.org"
  x509_svid_ttl = "1h"
  endpoint_host = "bundle.shop.example.org"
}
