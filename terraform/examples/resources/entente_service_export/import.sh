terraform import entente_service_export.checkout 'checkout,us.example.org'
