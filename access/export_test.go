package access

import "maps"

// Rules returns a copy of the table of all rules, by full gRPC method name.
func Rules() map[string]Rule { return maps.Clone(rules) }
