terraform import entente_federation_relationship.us 'us.example.org'
