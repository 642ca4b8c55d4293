data "entente_hint" "checkout" {
  service  = "checkout"
  locality = { region = "eu", zone = "a" }
}
