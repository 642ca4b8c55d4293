package plan

import (
	"cmp"
	"errors"
	"fmt"
	"strings"

	ententev1 "github.com/ententehq/entente/api/entente/v1"
)

// maxSegment bounds each part of a locality. It is the length of a DNS label, by which clouds name their zones.
const maxSegment = 63

// ErrLocality is returned for text that is not a locality.
var ErrLocality = errors.New("not a locality")

// Locality is a locality as in xDS: a region, a zone in it, and a sub-zone in that. The zero value has none of them. A
// Locality is comparable. A parsed one has no gaps: a zone only with a region, a sub-zone only with a zone.
type Locality struct {
	Region  string
	Zone    string
	SubZone string
}

// ParseLocality parses REGION[/ZONE[/SUB-ZONE]].
func ParseLocality(text string) (Locality, error) {
	parts := strings.Split(text, "/")
	if len(parts) > 3 {
		return Locality{}, fmt.Errorf(
			"%w: %q has %d parts; write REGION, REGION/ZONE or REGION/ZONE/SUB-ZONE",
			ErrLocality, Clip(text), len(parts),
		)
	}
	var l Locality
	for i, into := range []*string{&l.Region, &l.Zone, &l.SubZone} {
		if i == len(parts) {
			break
		}
		if err := checkSegment(parts[i]); err != nil {
			return Locality{}, fmt.Errorf("%w: %q: the %s %w", ErrLocality, Clip(text), levelNames[i], err)
		}
		*into = parts[i]
	}
	return l, nil
}

var levelNames = [...]string{"region", "zone", "sub-zone"}

// LocalityFromProto parses the message of the API. A missing locality is an error, as is a zone without a region.
func LocalityFromProto(m *ententev1.Locality) (Locality, error) {
	text := m.GetRegion()
	if m.GetZone() != "" || m.GetSubZone() != "" {
		text += "/" + m.GetZone()
	}
	if m.GetSubZone() != "" {
		text += "/" + m.GetSubZone()
	}
	if text == "" {
		return Locality{}, fmt.Errorf("%w: it is empty; at least a region is required", ErrLocality)
	}
	// A slash inside a field would shift the levels.
	if strings.Contains(m.GetRegion()+m.GetZone()+m.GetSubZone(), "/") {
		return Locality{}, fmt.Errorf("%w: %q: a part contains a slash", ErrLocality, Clip(text))
	}
	return ParseLocality(text)
}

// Proto returns the message of the API.
func (l Locality) Proto() *ententev1.Locality {
	return &ententev1.Locality{Region: l.Region, Zone: l.Zone, SubZone: l.SubZone}
}

// String returns REGION[/ZONE[/SUB-ZONE]], which ParseLocality parses.
func (l Locality) String() string {
	switch {
	case l.SubZone != "":
		return l.Region + "/" + l.Zone + "/" + l.SubZone
	case l.Zone != "":
		return l.Region + "/" + l.Zone
	}
	return l.Region
}

// Compare orders localities by region, then zone, then sub-zone.
func (l Locality) Compare(o Locality) int {
	return cmp.Or(cmp.Compare(l.Region, o.Region), cmp.Compare(l.Zone, o.Zone), cmp.Compare(l.SubZone, o.SubZone))
}

// Within reports whether l lies in o, which may be less precise.
func (l Locality) Within(o Locality) bool {
	return (o.Region == "" || l.Region == o.Region) && (o.Zone == "" || l.Zone == o.Zone) &&
		(o.SubZone == "" || l.SubZone == o.SubZone)
}

// parsePattern parses the place of a distribution rule: a locality, which stands for everything in it, or * for
// everywhere. REGION/* and REGION/ZONE/* are accepted too, as users of Istio write it.
func parsePattern(text string) (Locality, error) {
	if text == "*" {
		return Locality{}, nil
	}
	place := strings.TrimSuffix(text, "/*")
	return ParseLocality(place)
}

// patternText returns the text of a pattern for people.
func patternText(pattern Locality) string {
	if pattern == (Locality{}) {
		return "*"
	}
	return pattern.String()
}

func checkSegment(s string) error {
	switch {
	case s == "":
		return errors.New("is empty")
	case len(s) > maxSegment:
		return fmt.Errorf("has %d bytes; %d are allowed", len(s), maxSegment)
	}
	for i := range len(s) {
		c := s[i]
		switch {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9':
		case (c == '-' || c == '_' || c == '.') && i > 0:
		default:
			return fmt.Errorf(
				"has %q at byte %d; letters, digits, '-', '_' and '.' are allowed, a letter or digit first",
				c, i+1,
			)
		}
	}
	return nil
}

// Clip shortens text from others that is quoted in an error.
func Clip(s string) string {
	const most = 80
	if len(s) <= most {
		return s
	}
	return s[:most] + "…"
}
