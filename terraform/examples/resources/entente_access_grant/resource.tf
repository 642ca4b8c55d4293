resource "entente_access_grant" "deployer" {
  role         = "discovery"
  spiffe_id    = "spiffe://eu.example.org/deployer"
  trust_domain = "eu.example.org"
  path_prefix  = "/checkout"
  services     = ["checkout"]
}
