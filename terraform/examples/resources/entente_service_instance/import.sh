terraform import entente_service_instance.checkout 'checkout,10.0.0.1:443'
