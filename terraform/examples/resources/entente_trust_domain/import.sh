terraform import entente_trust_domain.shop 'shop.example.org'
