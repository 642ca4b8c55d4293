package routing

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
)

// ErrSupposition is returned for what cannot be read as a supposition.
var ErrSupposition = errors.New("not a supposition")

const (
	// maxSuppositions bounds what each instance is compared with.
	maxSuppositions = 64
	// domainSubject begins the subject of a supposition about a trust domain, as no locality and no address does.
	domainSubject = "domain:"
)

// Supposition is one thing that is imagined: of the instances in a place, in a trust domain, or at an address.
type Supposition struct {
	text string
	// about says which instances it is about.
	about func(Endpoint) bool
	// percent of the instances in each locality are down; 0: all of them are as health and trust say.
	percent int
	health  Health     // 0: as it is
	trust   TrustState // TrustUnknown: as it is
}

// String returns the supposition as it was written.
func (s Supposition) String() string { return s.text }

// ParseSupposition reads SUBJECT=STATE: PLACE=down, PLACE=PERCENT%, domain:NAME=TRUST or IP:PORT=HEALTH.
func ParseSupposition(text string) (Supposition, error) {
	subject, state, ok := strings.Cut(text, "=")
	if !ok {
		return Supposition{}, fmt.Errorf("%w: %q: write PLACE=down, PLACE=40%%, domain:NAME=expired or IP:PORT=unhealthy", ErrSupposition, clip(text))
	}
	s := Supposition{text: text}
	if name, ok := strings.CutPrefix(subject, domainSubject); ok {
		td, err := spiffeid.TrustDomainFromString(name)
		if err != nil || td.Name() != name {
			return s, fmt.Errorf("%w: %q names no trust domain", ErrSupposition, clip(text))
		}
		s.about = func(e Endpoint) bool { return e.ID.TrustDomain() == td }
		trust, known := map[string]TrustState{
			"fresh": TrustFresh, "stale": TrustStale, "expired": TrustExpired, "suspended": TrustSuspended,
		}[state]
		if !known {
			return s, fmt.Errorf("%w: %q: a trust domain is supposed to be fresh, stale, expired or suspended", ErrSupposition, clip(text))
		}
		s.trust = trust
		return s, nil
	}
	if strings.Contains(subject, ":") {
		return s.ofAddress(subject, state)
	}
	return s.ofPlace(subject, state)
}

func (s Supposition) ofAddress(subject, state string) (Supposition, error) {
	address, err := ParseAddress(subject)
	if err != nil {
		return s, err
	}
	s.about = func(e Endpoint) bool { return e.Address == address }
	for _, health := range []Health{Healthy, Degraded, Unhealthy, Draining} {
		if state == health.String() {
			s.health = health
			return s, nil
		}
	}
	return s, fmt.Errorf("%w: %q: an instance is supposed to be healthy, degraded, unhealthy or draining", ErrSupposition, clip(s.text))
}

func (s Supposition) ofPlace(subject, state string) (Supposition, error) {
	place, err := ParseLocality(subject)
	if err != nil {
		return s, err
	}
	s.about = func(e Endpoint) bool { return e.Locality.within(place) }
	if place.Zone == "" { // people call a zone by its name alone
		s.about = func(e Endpoint) bool { return e.Locality.Region == place.Region || e.Locality.Zone == place.Region }
	}
	s.health = Unhealthy
	if state == "down" {
		return s, nil
	}
	number, ok := strings.CutSuffix(state, "%")
	percent, err := strconv.Atoi(number)
	if !ok || err != nil || percent < 1 || percent > 100 || strconv.Itoa(percent) != number {
		return s, fmt.Errorf("%w: %q: a place is supposed to be down, or 1%% to 100%% of it", ErrSupposition, clip(s.text))
	}
	s.percent = percent
	return s, nil
}

// Suppose returns the endpoints as they are in what is imagined, in their order, and the suppositions that are about none of
// them. It is a pure function, and changes nothing of what it is given. Of two suppositions about the health of one endpoint,
// or its trust, the later one counts. Of a locality that is down in part, the first endpoints are, by address, and their number is rounded up.
func Suppose(endpoints []Endpoint, suppositions []Supposition) (out []Endpoint, unmatched []Supposition) {
	out = slices.Clone(endpoints)
	order := make([]int, len(out))
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(a, b int) int { return out[a].Address.Compare(out[b].Address) })
	for _, s := range suppositions {
		places := make(map[Locality]int)
		for _, e := range out {
			if s.about(e) {
				places[e.Locality]++
			}
		}
		if len(places) == 0 {
			unmatched = append(unmatched, s)
			continue
		}
		if s.percent > 0 {
			for place, n := range places {
				places[place] = (n*s.percent + 99) / 100
			}
		}
		for _, i := range order {
			e := &out[i]
			if !s.about(*e) || places[e.Locality] == 0 {
				continue
			}
			places[e.Locality]--
			if s.health != 0 {
				e.Health, e.Supposed, e.Lapsed = s.health, true, false
			}
			if s.trust != TrustUnknown {
				e.Trust = s.trust
			}
		}
	}
	return out, unmatched
}

// Carried says what of the requests of all callers goes where.
type Carried struct {
	// Regions has percentages, by region; with Nowhere they add up to 100, unless there is no caller.
	Regions map[string]uint32
	Nowhere uint32
	// Available counts the endpoints of each region that get load without a panic.
	Available map[string]uint32
}

// Carry sends the requests of the callers in all localities that have endpoints by the plans of each. The callers of a
// locality are taken to be as many as the weights of its endpoints, whatever their health: who runs a third of a service in a
// zone has a third of its callers there.
func (p *Policy) Carry(endpoints []Endpoint) Carried {
	callers := make(map[Locality]uint64)
	sums := make(map[string]uint64)
	out := Carried{Regions: make(map[string]uint32), Available: make(map[string]uint32)}
	for _, e := range endpoints {
		sums[e.Locality.Region] += 0
		if !e.Outranked { // what stands at its address is counted
			callers[e.Locality] += uint64(e.Weight)
		}
	}
	nowhere, arranged := uint64(0), p.Arrange(endpoints)
	for _, c := range arranged.ranked {
		if available := c.healthy + c.degraded; available > 0 {
			out.Available[c.locality.Region] += uint32(available) //nolint:gosec // G115: there are as many as endpoints at most
		}
	}
	for caller, weight := range callers {
		plan := arranged.Plan(caller)
		if plan.Reason != "" {
			nowhere += weight * 100 * 100
			continue
		}
		for _, priority := range plan.Priorities {
			for _, l := range priority.Localities {
				sums[l.Locality.Region] += weight * uint64(priority.Load*l.Share+priority.DegradedLoad*l.DegradedShare)
			}
		}
	}
	regions := make([]string, 0, len(sums))
	for region := range sums {
		regions = append(regions, region)
	}
	slices.Sort(regions)
	parts := make([]uint64, 0, len(regions)+1)
	for _, region := range regions {
		parts = append(parts, sums[region])
	}
	parts = percentages(append(parts, nowhere))
	for i, region := range regions {
		out.Regions[region] = uint32(parts[i])
	}
	out.Nowhere = uint32(parts[len(regions)])
	return out
}

// parseSuppositions reads all of a request.
func parseSuppositions(texts []string) ([]Supposition, error) {
	if len(texts) > maxSuppositions {
		return nil, fmt.Errorf("%w: there are %d; %d are allowed", ErrSupposition, len(texts), maxSuppositions)
	}
	out := make([]Supposition, 0, len(texts))
	for _, text := range texts {
		s, err := ParseSupposition(text)
		if err != nil {
			return nil, err
		}
		out = append(out, s)
	}
	return out, nil
}
