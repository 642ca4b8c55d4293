terraform import entente_join_token.eu_2 'eu-2'
