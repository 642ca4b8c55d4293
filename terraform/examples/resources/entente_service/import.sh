terraform import entente_service.web 'web'
