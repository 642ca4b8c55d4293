package plan

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/ententehq/entente/trust"
)

// ErrScenario is returned for what cannot be read as a supposition.
var ErrScenario = errors.New("not a supposition")

const (
	// maxAssumptions bounds what each instance is compared with.
	maxAssumptions = 64
	// domainSubject begins the subject of a supposition about a trust domain, as no locality and no address does.
	domainSubject = "domain:"
)

// Assumption is one thing that is imagined: of the instances in a place, in a trust domain, or at an address.
type Assumption struct {
	text string
	// matches says which instances it is about.
	matches func(Endpoint) bool
	// percent of the instances in each locality are down; 0: all of them are as health and trust say.
	percent int
	health  Health      // 0: as it is
	trust   trust.State // TrustUnknown: as it is
}

// String returns the supposition as it was written.
func (s Assumption) String() string { return s.text }

// ParseAssumption reads SUBJECT=STATE: PLACE=down, PLACE=PERCENT%, domain:NAME=TRUST or IP:PORT=HEALTH.
func ParseAssumption(text string) (Assumption, error) {
	subject, state, ok := strings.Cut(text, "=")
	if !ok {
		return Assumption{}, fmt.Errorf(
			"%w: %q: write PLACE=down, PLACE=40%%, domain:NAME=expired or IP:PORT=unhealthy",
			ErrScenario,
			Clip(text),
		)
	}
	s := Assumption{text: text}
	if name, ok := strings.CutPrefix(subject, domainSubject); ok {
		td, err := spiffeid.TrustDomainFromString(name)
		if err != nil || td.Name() != name {
			return s, fmt.Errorf("%w: %q names no trust domain", ErrScenario, Clip(text))
		}
		s.matches = func(e Endpoint) bool { return e.ID.TrustDomain() == td }
		trusted, known := map[string]trust.State{
			"fresh": trust.Fresh, "stale": trust.Stale, "expired": trust.Expired, "suspended": trust.Suspended,
		}[state]
		if !known {
			return s, fmt.Errorf(
				"%w: %q: a trust domain is supposed to be fresh, stale, expired or suspended",
				ErrScenario,
				Clip(text),
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
		"%w: %q: an instance is supposed to be healthy, degraded, unhealthy or draining",
		ErrScenario,
		Clip(s.text),
	)
}

func (s Assumption) ofPlace(subject, state string) (Assumption, error) {
	place, err := ParseLocality(subject)
	if err != nil {
		return s, err
	}
	s.matches = func(e Endpoint) bool { return e.Locality.Within(place) }
	if place.Zone == "" { // people call a zone by its name alone
		s.matches = func(e Endpoint) bool { return e.Locality.Region == place.Region || e.Locality.Zone == place.Region }
	}
	s.health = Unhealthy
	if state == "down" {
		return s, nil
	}
	number, ok := strings.CutSuffix(state, "%")
	percent, err := strconv.Atoi(number)
	if !ok || err != nil || percent < 1 || percent > 100 || strconv.Itoa(percent) != number {
		return s, fmt.Errorf("%w: %q: a place is supposed to be down, or 1%% to 100%% of it", ErrScenario, Clip(s.text))
	}
	s.percent = percent
	return s, nil
}

// ApplyScenario returns the endpoints as they are in what is imagined, in their order, and the suppositions that are
// about none of them. It is a pure function, and changes nothing of what it is given. Of two suppositions about the
// health of one endpoint, or its trust, the later one counts. Of a locality that is down in part, the first endpoints
// are, by address, and their number is rounded up.
func ApplyScenario(endpoints []Endpoint, suppositions []Assumption) (out []Endpoint, unmatched []Assumption) {
	out = slices.Clone(endpoints)
	order := make([]int, len(out))
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(a, b int) int { return out[a].Address.Compare(out[b].Address) })
	for _, s := range suppositions {
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
				e.Health, e.Supposed, e.Lapsed = s.health, true, false
			}
			if s.trust != trust.Unknown {
				e.Trust = s.trust
			}
		}
	}
	return out, unmatched
}

// LoadDistribution says what of the requests of all callers goes where.
type LoadDistribution struct {
	// Regions has percentages, by region; with Nowhere they add up to 100, unless there is no caller.
	Regions map[string]uint32
	Nowhere uint32
	// Available counts the endpoints of each region that get load without a panic.
	Available map[string]uint32
}

// DistributeLoad sends the requests of the callers in all localities that have endpoints by the plans of each. The
// callers of a locality are taken to be as many as the weights of its endpoints, whatever their health: who runs a
// third of a service in a zone has a third of its callers there.
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
			out.Available[c.locality.Region] += uint32(
				available,
			) //nolint:gosec // G115: there are as many as endpoints at most
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

// ParseScenario reads all of a request.
func ParseScenario(texts []string) ([]Assumption, error) {
	if len(texts) > maxAssumptions {
		return nil, fmt.Errorf("%w: there are %d; %d are allowed", ErrScenario, len(texts), maxAssumptions)
	}
	out := make([]Assumption, 0, len(texts))
	for _, text := range texts {
		s, err := ParseAssumption(text)
		if err != nil {
			return nil, err
		}
		out = append(out, s)
	}
	return out, nil
}
