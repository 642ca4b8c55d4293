package plan

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/ententehq/entente/trust/standing"
)

// ErrScenario is returned for text that is not an assumption, or for too many of them.
var ErrScenario = errors.New("not an assumption")

const (
	// maxAssumptions bounds the assumptions that each endpoint is compared with.
	maxAssumptions = 64
	// domainSubject is the prefix of the subject of an assumption about a trust domain. No locality and no address has
	// it.
	domainSubject = "domain:"
)

// Scenario is a what-if scenario: several assumptions that hold together.
type Scenario []Assumption

// Assumption is one element of a what-if scenario: a state of the endpoints in a place, in a trust domain, or at an
// address.
type Assumption struct {
	text string
	// matches reports whether an endpoint is concerned.
	matches func(Endpoint) bool
	// percent of the endpoints in each locality are down. If 0, all of them have the given health and trust.
	percent int
	health  Health         // 0: as it is
	trust   standing.State // TrustUnknown: as it is
}

// String returns the assumption as it was written.
func (s Assumption) String() string { return s.text }

// parseAssumption parses SUBJECT=STATE: PLACE=down, PLACE=PERCENT%, domain:NAME=TRUST or IP:PORT=HEALTH.
func parseAssumption(text string) (Assumption, error) {
	subject, state, ok := strings.Cut(text, "=")
	if !ok {
		return Assumption{}, fmt.Errorf(
			"%w: %q: write PLACE=down, PLACE=40%%, domain:NAME=expired or IP:PORT=unhealthy",
			ErrScenario, Clip(text),
		)
	}
	s := Assumption{text: text}
	if name, ok := strings.CutPrefix(subject, domainSubject); ok {
		td, err := spiffeid.TrustDomainFromString(name)
		if err != nil || td.Name() != name {
			return s, fmt.Errorf("%w: %q names no trust domain", ErrScenario, Clip(text))
		}
		s.matches = func(e Endpoint) bool { return e.ID.TrustDomain() == td }
		trusted, known := map[string]standing.State{
			"fresh": standing.Fresh, "stale": standing.Stale, "expired": standing.Expired,
			"suspended": standing.Suspended,
		}[state]
		if !known {
			return s, fmt.Errorf(
				"%w: %q: a trust domain can be fresh, stale, expired or suspended",
				ErrScenario, Clip(text),
			)
		}
		s.trust = trusted
		return s, nil
	}
	if strings.Contains(subject, ":") {
		return s.ofAddress(subject, state)
	}
	return s.ofPlace(subject, state)
}

func (s Assumption) ofAddress(subject, state string) (Assumption, error) {
	address, err := ParseAddress(subject)
	if err != nil {
		return s, err
	}
	s.matches = func(e Endpoint) bool { return e.Address == address }
	for _, health := range []Health{Healthy, Degraded, Unhealthy, Draining} {
		if state == health.String() {
			s.health = health
			return s, nil
		}
	}
	return s, fmt.Errorf(
		"%w: %q: an instance can be healthy, degraded, unhealthy or draining",
		ErrScenario, Clip(s.text),
	)
}

func (s Assumption) ofPlace(subject, state string) (Assumption, error) {
	place, err := ParseLocality(subject)
	if err != nil {
		return s, err
	}
	s.matches = func(e Endpoint) bool { return e.Locality.Within(place) }
	if place.Zone == "" { // a zone may be written without its region
		s.matches = func(e Endpoint) bool {
			return e.Locality.Region == place.Region || e.Locality.Zone == place.Region
		}
	}
	s.health = Unhealthy
	if state == "down" {
		return s, nil
	}
	number, ok := strings.CutSuffix(state, "%")
	percent, err := strconv.Atoi(number)
	if !ok || err != nil || percent < 1 || percent > 100 || strconv.Itoa(percent) != number {
		return s, fmt.Errorf("%w: %q: a place can be down, or 1%% to 100%% of it", ErrScenario, Clip(s.text))
	}
	s.percent = percent
	return s, nil
}

// Apply returns the endpoints as they are in the scenario, in their order, and the assumptions that concern none of
// them. It is a pure function and changes none of its arguments. Of two assumptions about the health, or the trust, of
// one endpoint the later one applies. If a locality is down in part, its first endpoints are down, by address, and
// their number is rounded up.
func (scenario Scenario) Apply(endpoints []Endpoint) (out []Endpoint, unmatched []Assumption) {
	out = slices.Clone(endpoints)
	order := make([]int, len(out))
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(a, b int) int { return out[a].Address.Compare(out[b].Address) })
	for _, s := range scenario {
		places := make(map[Locality]int)
		for _, e := range out {
			if s.matches(e) {
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
			if !s.matches(*e) || places[e.Locality] == 0 {
				continue
			}
			places[e.Locality]--
			if s.health != 0 {
				e.Health, e.Assumed, e.LeaseExpired, e.Kept = s.health, true, false, false
			}
			if s.trust != standing.Unknown {
				e.Trust = s.trust
			}
		}
	}
	return out, unmatched
}

// LoadDistribution is where the requests of all callers go.
type LoadDistribution struct {
	// Regions has percentages by region. With Unserved they add up to 100, unless there is no caller.
	Regions  map[string]uint32
	Unserved uint32
	// Available counts the endpoints of each region that get load without a panic.
	Available map[string]uint32
}

// DistributeLoad distributes the requests of the callers in all localities that have endpoints, by the plan of each.
// The number of callers in a locality is assumed to be proportional to the weights of its endpoints, whatever their
// health: who runs a third of a service in a zone has a third of its callers there.
func (p *Policy) DistributeLoad(endpoints []Endpoint) LoadDistribution {
	callers := make(map[Locality]uint64)
	sums := make(map[string]uint64)
	out := LoadDistribution{Regions: make(map[string]uint32), Available: make(map[string]uint32)}
	for _, e := range endpoints {
		sums[e.Locality.Region] += 0
		if !e.Outranked { // what stands at its address is counted
			callers[e.Locality] += uint64(e.Weight)
		}
	}
	nowhere, arranged := uint64(0), p.Arrange(endpoints)
	for _, c := range arranged.ranked {
		if available := c.healthy + c.degraded; available > 0 {
			out.Available[c.locality.Region] += uint32(available) //nolint:gosec // G115: as many as endpoints at most
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
	out.Unserved = uint32(parts[len(regions)])
	return out
}

// ParseScenario parses the assumptions of a request.
func ParseScenario(texts []string) (Scenario, error) {
	if len(texts) > maxAssumptions {
		return nil, fmt.Errorf("%w: there are %d; %d are allowed", ErrScenario, len(texts), maxAssumptions)
	}
	out := make(Scenario, 0, len(texts))
	for _, text := range texts {
		s, err := parseAssumption(text)
		if err != nil {
			return nil, err
		}
		out = append(out, s)
	}
	return out, nil
}
