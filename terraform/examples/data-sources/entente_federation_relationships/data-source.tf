data "entente_federation_relationships" "all" {}
