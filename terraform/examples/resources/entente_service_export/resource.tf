resource "entente_service_export" "checkout" {
  service    = "checkout"
  name       = "checkout"
  to         = "us.example.org"
  localities = ["eu/a"]
}
