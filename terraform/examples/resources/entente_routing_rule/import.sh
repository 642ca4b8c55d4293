terraform import entente_routing_rule.checkout 'checkout'
