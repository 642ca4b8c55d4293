terraform import entente_service_import.payments 'payments,us.example.org'
