resource "entente_federation_relationship" "us" {
  trust_domain         = "us.example.org"
  url                  = "https://us-1.example.org:7443/"
  fallback_urls        = ["https://us-2.example.org:7443/"]
  profile              = "https_spiffe"
  endpoint_spiffe_id   = "spiffe://us.example.org/entente/bundle-endpoint"
  bootstrap_wo         = file("us.example.org.json")
  bootstrap_wo_version = 1
}
