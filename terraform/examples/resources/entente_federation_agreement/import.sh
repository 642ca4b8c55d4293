terraform import entente_federation_agreement.asia 'asia.example.org'
