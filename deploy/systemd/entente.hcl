# The configuration of this member. Write the names that are marked, then:
#
#   entente validate /etc/entente/entente.hcl
#
# Everything that is not here has a default; 'entente validate --effective' prints it. All settings, with comments, are in
# https://github.com/ententehq/entente/blob/main/examples/entente.hcl

cluster {
  name         = "eu"             # the same on every member
  trust_domain = "eu.example.org" # the home trust domain, the same on every member
  region       = "eu-west-1"
}

member {
  id        = "eu-1" # different on every member
  zone      = "eu-west-1a"
  data_dir  = "/var/lib/entente"
  listen    = "0.0.0.0:7440"
  advertise = "eu-1.example.org:7440" # how others reach this member
}

bundle_endpoint { listen = "0.0.0.0:7443" }

# Every member but the first joins by a token from 'entente cluster join-token ID', which the unit loads by
# LoadCredential=join-token:/etc/entente/join-token.
#join {
#  addresses = ["eu-1.example.org:7440"]
#  token     = "file:$CREDENTIALS_DIRECTORY/join-token"
#}

# The signing keys in /var/lib/entente are not encrypted without this. 'openssl rand -base64 32' makes a key, which the
# unit loads by LoadCredential=wrapping-key:/etc/entente/wrapping-key.
#authority {
#  keys "disk" {
#    encryption "key" { key = "file:$CREDENTIALS_DIRECTORY/wrapping-key" }
#  }
#}
