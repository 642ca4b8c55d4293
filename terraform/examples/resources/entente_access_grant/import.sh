terraform import entente_access_grant.deployer 'discovery,spiffe://eu.example.org/deployer,eu.example.org,/checkout'
