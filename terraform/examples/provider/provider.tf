terraform {
  required_providers {
    entente = {
      source = "ententehq/entente"
    }
  }
}

provider "entente" {
  addresses = ["eu-1.example.org:7440", "eu-2.example.org:7440", "eu-3.example.org:7440"]
  cert      = "/run/terraform/svid.pem"
  key       = "/run/terraform/svid.key"
  bundle    = "/run/terraform/bundle.pem"
}
