resource "entente_service_instance" "checkout" {
  service   = "checkout"
  address   = "10.0.0.1:443"
  locality  = { region = "eu", zone = "a" }
  spiffe_id = "spiffe://eu.example.org/checkout"
  weight    = 10
}
