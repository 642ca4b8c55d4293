resource "entente_service" "web" {
  name = "web"
  instances = [
    for address in ["10.0.1.10:8443", "10.0.1.11:8443"] : {
      address   = address
      locality  = { region = "eu-west-1", zone = "eu-west-1a" }
      spiffe_id = "spiffe://eu.example.org/web"
    }
  ]
}
