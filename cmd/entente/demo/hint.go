package demo

import (
	"context"
	"fmt"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	ententev1 "github.com/ententehq/entente/api/entente/v1"
)

// choice is an endpoint of a hint.
type choice struct {
	address  string
	id       spiffeid.ID
	region   string
	zone     string
	priority int
}

func (c choice) String() string {
	return fmt.Sprintf("%s at %s (%s/%s)", c.id, c.address, c.region, c.zone)
}

// choices returns the endpoints of a hint in order: those of the priorities with load, then the rest.
func choices(h *ententev1.Hint) ([]choice, error) {
	var loaded, rest []choice
	for _, p := range h.GetPriorities() {
		for _, l := range p.GetLocalities() {
			for _, e := range l.GetEndpoints() {
				id, err := spiffeid.FromString(e.GetSpiffeId())
				if err != nil {
					return nil, fmt.Errorf("read the hint: %w", err)
				}
				c := choice{
					address:  e.GetAddress(),
					id:       id,
					region:   l.GetLocality().GetRegion(),
					zone:     l.GetLocality().GetZone(),
					priority: int(p.GetPriority()),
				}
				if p.GetLoad()+p.GetDegradedLoad() > 0 {
					loaded = append(loaded, c)
				} else {
					rest = append(rest, c)
				}
			}
		}
	}
	return append(loaded, rest...), nil
}

// watchHint follows the hint for callers in a zone of a region until accept returns true. It calls opened at the first
// hint, if that is not nil.
func watchHint(
	ctx context.Context, r *region, zone string, opened func(), accept func([]choice) bool,
) ([]choice, error) {
	for h, err := range r.conn.WatchHint(ctx, serviceName, &ententev1.Locality{Region: r.name, Zone: zone}) {
		var list []choice
		if err == nil {
			list, err = choices(h)
		}
		switch {
		case err != nil:
			return nil, fmt.Errorf("watch the hint for %s in %s/%s: %w", serviceName, r.name, zone, err)
		case opened != nil:
			opened()
			opened = nil
		}
		if accept(list) {
			return list, nil
		}
	}
	return nil, ctx.Err()
}
