package domain

import (
	"slices"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	statev1 "github.com/ententehq/entente/api/entente/state/v1"
	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/authority/plan"
)

// domainField is a duration among the settings that a client can set.
type domainField struct {
	name string
	get  func(*ententev1.Domain) *durationpb.Duration
	set  func(s plan.Settings, value time.Duration, now time.Time) plan.Settings
}

var domainFields = []domainField{
	{
		"refresh_hint",
		(*ententev1.Domain).GetRefreshHint,
		func(s plan.Settings, v time.Duration, now time.Time) plan.Settings {
			if now.Equal(plan.Never) { // a new domain has no readers
				s.RefreshHint = v
				return s
			}
			return s.WithHint(v, now)
		},
	},
	{
		"peer_min_refresh",
		(*ententev1.Domain).GetPeerMinRefresh,
		func(s plan.Settings, v time.Duration, _ time.Time) plan.Settings { s.PeerMinRefresh = v; return s },
	},
	{
		"x509_svid_ttl",
		(*ententev1.Domain).GetX509SvidTtl,
		func(s plan.Settings, v time.Duration, _ time.Time) plan.Settings { s.X509SVIDTTL = v; return s },
	},
	{
		"jwt_svid_ttl",
		(*ententev1.Domain).GetJwtSvidTtl,
		func(s plan.Settings, v time.Duration, _ time.Time) plan.Settings { s.JWTSVIDTTL = v; return s },
	},
	{
		"ca_ttl",
		(*ententev1.Domain).GetCaTtl,
		func(s plan.Settings, v time.Duration, _ time.Time) plan.Settings { s.CATTL = v; return s },
	},
}

func (f domainField) given(d *ententev1.Domain) bool { return f.get(d) != nil }

// apply sets the field in settings.
func (f domainField) apply(s plan.Settings, from *ententev1.Domain, now time.Time) (plan.Settings, error) {
	d := f.get(from)
	if d == nil {
		return s, status.Errorf(codes.InvalidArgument, "%s is named by update_mask and has no value", f.name)
	}
	if !d.IsValid() {
		return s, status.Errorf(codes.InvalidArgument, "%s is not a duration: it has %d seconds and %d nanoseconds",
			f.name, d.GetSeconds(), d.GetNanos())
	}
	return f.set(s, d.AsDuration(), now), nil
}

// domainValues are the settings that are texts or flags. The zero value is valid.
var domainValues = map[string]func(row *statev1.Domain, wanted *ententev1.Domain){
	"endpoint_host": func(row *statev1.Domain, wanted *ententev1.Domain) {
		row.EndpointHost = wanted.GetEndpointHost()
	},
	"oidc_issuer": func(row *statev1.Domain, wanted *ententev1.Domain) { row.OidcIssuer = wanted.GetOidcIssuer() },
	"deletion_protection": func(row *statev1.Domain, wanted *ententev1.Domain) {
		row.DeletionProtection = wanted.GetDeletionProtection()
	},
	"name_constraints": func(row *statev1.Domain, wanted *ententev1.Domain) {
		row.NameConstraints = wanted.GetNameConstraints()
	},
}

// parseMask returns the settings that a mask names.
func parseMask(
	paths []string,
) (fields []domainField, values []func(*statev1.Domain, *ententev1.Domain), err error) {
	if len(paths) == 0 {
		return nil, nil, status.Error(
			codes.InvalidArgument,
			"update_mask is empty; name the fields to change: endpoint_host, oidc_issuer, refresh_hint, "+
				"peer_min_refresh, x509_svid_ttl, jwt_svid_ttl, ca_ttl, name_constraints, deletion_protection",
		)
	}
	for _, path := range paths {
		if set, ok := domainValues[path]; ok {
			values = append(values, set)
			continue
		}
		i := slices.IndexFunc(domainFields, func(f domainField) bool { return f.name == path })
		if i < 0 {
			return nil, nil, status.Errorf(
				codes.InvalidArgument,
				"update_mask names %q, which cannot be changed; endpoint_host, oidc_issuer, refresh_hint, "+
					"peer_min_refresh, x509_svid_ttl, jwt_svid_ttl, ca_ttl, name_constraints and "+
					"deletion_protection can",
				path,
			)
		}
		fields = append(fields, domainFields[i])
	}
	return fields, values, nil
}
