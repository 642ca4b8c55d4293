package plan

import (
	"net/netip"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/ententehq/entente/trust/standing"
)

func BenchmarkPlan(b *testing.B) {
	var list []Endpoint
	a, err := ParseAddress("10.0.0.1:1")
	require.NoError(b, err)
	for n := range 100 {
		list = append(list, Endpoint{
			Address: netip.AddrPortFrom(
				a.Addr(),
				a.Port()+uint16(n),
			), ID: euID, Locality: Locality{Region: "eu", Zone: string(rune('a' + n%5))},
			Weight: 1, Health: Healthy, Trust: standing.Fresh,
		})
	}
	p := DefaultPolicy()
	for b.Loop() {
		p.Plan(caller, list)
	}
}
