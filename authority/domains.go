package authority

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/ententehq/entente/access"
	statev1 "github.com/ententehq/entente/api/entente/state/v1"
	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/authority/plan"
	"github.com/ententehq/entente/authority/table"
	"github.com/ententehq/entente/bundle"
	"github.com/ententehq/entente/bundle/endpoint"
	"github.com/ententehq/entente/raftstore"
)

// maxDomains bounds how many trust domains a cluster hosts: each costs every member two keys and their renewal.
const maxDomains = 256

// domainService serves entente.v1.DomainService.
type domainService struct {
	ententev1.UnimplementedDomainServiceServer
	m *Manager
}

// DomainService returns the service that manages hosted trust domains. Who may call it is decided before it is called.
func (m *Manager) DomainService() ententev1.DomainServiceServer { return &domainService{m: m} }

// CreateDomain makes the cluster the authority for one more trust domain. Its first authorities follow at once.
func (s *domainService) CreateDomain(ctx context.Context, r *ententev1.CreateDomainRequest) (*ententev1.Domain, error) {
	asked := r.GetDomain()
	td, err := parseDomainName(asked.GetTrustDomain())
	if err != nil {
		return nil, err
	}
	settings := s.m.config.Defaults
	for _, f := range domainFields {
		if f.given(asked) {
			if settings, err = f.apply(settings, asked, plan.Never); err != nil {
				return nil, err
			}
		}
	}
	if err := s.check(settings, asked.GetEndpointHost(), asked.GetOidcIssuer()); err != nil {
		return nil, err
	}
	var row *statev1.Domain
	revision, err := s.m.config.Store.Update(ctx, func(tx *raftstore.Tx) error {
		if err := s.creatable(tx, asked); err != nil {
			return err
		}
		row = &statev1.Domain{TrustDomain: td.Name(), EndpointHost: asked.GetEndpointHost(), OidcIssuer: asked.GetOidcIssuer(), CreateTime: timestamppb.New(s.m.config.Now())}
		table.SetSettings(row, settings)
		return table.Domains.Put(tx, td.Name(), row)
	})
	if err != nil {
		return nil, raftstore.StatusError(err)
	}
	return s.m.domainMessage(row, revision), nil
}

// creatable refuses a domain that is there, that is foreign, or that is one too many.
func (s *domainService) creatable(tx *raftstore.Tx, asked *ententev1.Domain) error {
	td := asked.GetTrustDomain()
	rows, err := table.Domains.List(tx, "")
	if err != nil {
		return err
	}
	for _, row := range rows {
		if row.Key == td {
			return status.Errorf(codes.AlreadyExists, "this cluster hosts %s already; change it with domain update", td)
		}
	}
	if len(rows) >= maxDomains {
		return status.Errorf(codes.ResourceExhausted, "this cluster hosts %d trust domains, which is the limit; delete one, or set up another cluster", len(rows))
	}
	foreign, err := s.m.config.IsForeign(tx, td)
	if err != nil {
		return fmt.Errorf("look for a relationship with %s: %w", td, err)
	}
	if foreign {
		return status.Errorf(codes.FailedPrecondition, "there is a relationship with %s, and a hosted domain is never foreign; delete the relationship first", td)
	}
	return addressesAreFree(tx, td, asked.GetEndpointHost(), asked.GetOidcIssuer())
}

// addressesAreFree refuses an endpoint host or an issuer that another domain has.
func addressesAreFree(tx *raftstore.Tx, td, host, issuer string) error {
	if host == "" && issuer == "" {
		return nil
	}
	for row, err := range table.Domains.All(tx, "") {
		if err != nil {
			return err
		}
		if row.Key == td {
			continue
		}
		if host != "" && row.Value.GetEndpointHost() == host {
			return status.Errorf(codes.AlreadyExists, "endpoint_host %s is that of %s; each domain needs its own", host, row.Key)
		}
		if issuer != "" && sameIssuer(row.Value.GetOidcIssuer(), issuer) {
			return status.Errorf(codes.AlreadyExists, "oidc_issuer %s is that of %s, whatever the port; each domain needs its own", issuer, row.Key)
		}
	}
	return nil
}

// check holds settings against the rules, for the self-signed upstream also against the life of its roots.
func (s *domainService) check(settings plan.Settings, endpointHost, issuer string) error {
	if err := settings.Check(s.m.config.MinRefresh); err != nil {
		return status.Error(codes.InvalidArgument, err.Error())
	}
	if root := s.m.config.RootTTL; s.m.config.Upstream == nil && root < 4*settings.CATTL {
		return status.Errorf(codes.InvalidArgument, "ca_ttl is %v; it can be a quarter of root_ttl (%v) at most", settings.CATTL, root)
	}
	if endpointHost != "" {
		if err := access.CheckDNSName(endpointHost); err != nil {
			return status.Errorf(codes.InvalidArgument, "endpoint_host: %v", err)
		}
	}
	if issuer != "" {
		if _, err := endpoint.ParseIssuer(issuer); err != nil {
			return status.Errorf(codes.InvalidArgument, "oidc_issuer: %v", err)
		}
	}
	return nil
}

// sameIssuer says whether two issuers are served at the same place.
func sameIssuer(a, b string) bool {
	one, err := endpoint.ParseIssuer(a)
	if err != nil {
		return false // none
	}
	other, err := endpoint.ParseIssuer(b)
	return err == nil && one.SamePlace(other)
}

// ListDomains lists the hosted trust domains.
func (s *domainService) ListDomains(ctx context.Context, r *ententev1.ListDomainsRequest) (*ententev1.ListDomainsResponse, error) {
	view, err := s.m.view(ctx, r.GetRead())
	if err != nil {
		return nil, err
	}
	response := &ententev1.ListDomainsResponse{Revision: uint64(view.Revision())}
	for row, err := range table.Domains.All(view, "") {
		if err != nil {
			return nil, raftstore.StatusError(err)
		}
		response.Domains = append(response.Domains, s.m.domainMessage(row.Value, row.Revision))
	}
	return response, nil
}

// GetDomain returns one hosted trust domain.
func (s *domainService) GetDomain(ctx context.Context, r *ententev1.GetDomainRequest) (*ententev1.Domain, error) {
	td, err := parseDomainName(r.GetTrustDomain())
	if err != nil {
		return nil, err
	}
	view, err := s.m.view(ctx, r.GetRead())
	if err != nil {
		return nil, err
	}
	row, ok, err := table.Domains.Get(view, td.Name())
	if err != nil {
		return nil, raftstore.StatusError(err)
	}
	if !ok {
		return nil, notHosted(td.Name())
	}
	return s.m.domainMessage(row.Value, row.Revision), nil
}

// UpdateDomain changes the fields that the mask names.
func (s *domainService) UpdateDomain(ctx context.Context, r *ententev1.UpdateDomainRequest) (*ententev1.Domain, error) {
	asked := r.GetDomain()
	td, err := parseDomainName(asked.GetTrustDomain())
	if err != nil {
		return nil, err
	}
	fields, texts, err := parseMask(r.GetUpdateMask().GetPaths())
	if err != nil {
		return nil, err
	}
	var row *statev1.Domain
	revision, err := s.m.config.Store.Update(ctx, func(tx *raftstore.Tx) error {
		stored, ok, err := table.Domains.Get(tx, td.Name())
		if err != nil {
			return err
		}
		if !ok {
			return notHosted(td.Name())
		}
		row = stored.Value
		now, settings := s.m.config.Now(), table.SettingsOf(row)
		for _, f := range fields {
			if settings, err = f.apply(settings, asked, now); err != nil {
				return err
			}
		}
		for _, take := range texts {
			take(row, asked)
		}
		if err := s.check(settings, row.GetEndpointHost(), row.GetOidcIssuer()); err != nil {
			return err
		}
		if err := addressesAreFree(tx, td.Name(), row.GetEndpointHost(), row.GetOidcIssuer()); err != nil {
			return err
		}
		table.SetSettings(row, settings)
		if err := table.Domains.Put(tx, td.Name(), row); err != nil {
			return err
		}
		if err := table.ExtendLongestSVID(tx, td.Name(), settings); err != nil {
			return err
		}
		_, err = s.m.publish(tx, row, now)
		return err
	})
	if err != nil {
		return nil, raftstore.StatusError(err)
	}
	return s.m.domainMessage(row, revision), nil
}

// DeleteDomain ends a hosted trust domain: its authorities, its bundle and the history of that, its grants. What remains is its last sequence.
func (s *domainService) DeleteDomain(ctx context.Context, r *ententev1.DeleteDomainRequest) (*ententev1.DeleteDomainResponse, error) {
	td, err := parseDomainName(r.GetTrustDomain())
	if err != nil {
		return nil, err
	}
	if td == s.m.config.Home {
		return nil, status.Errorf(codes.FailedPrecondition, "%s is the home domain, which names the members; it cannot be deleted", td)
	}
	revision, err := s.m.config.Store.Update(ctx, func(tx *raftstore.Tx) error { return deleteDomain(tx, td) })
	if err != nil {
		return nil, raftstore.StatusError(err)
	}
	return &ententev1.DeleteDomainResponse{Revision: uint64(revision)}, nil
}

func deleteDomain(tx *raftstore.Tx, td spiffeid.TrustDomain) error {
	name := td.Name()
	if hosted, err := table.Hosts(tx, name); err != nil {
		return err
	} else if !hosted {
		return notHosted(name)
	}
	last, err := lastSequences(tx)
	if err != nil {
		return err
	}
	if sequence := last[name]; sequence > 0 {
		if err := table.PastSequences.Put(tx, name, &statev1.PastSequence{TrustDomain: name, Sequence: sequence}); err != nil {
			return err
		}
	}
	rows, err := table.ListAuthorities(tx, name)
	if err != nil {
		return err
	}
	for _, row := range rows {
		if err := table.Authorities.Delete(tx, table.AuthorityKey(name, row.GetId())); err != nil {
			return err
		}
	}
	for _, remove := range []func(*raftstore.Tx, string) error{forgetHistory, table.ForgetUpstreamAnchors, table.HostedBundles.Delete, table.Rotations.Delete, table.Domains.Delete} {
		if err := remove(tx, name); err != nil {
			return err
		}
	}
	return access.RevokeDomain(tx, td)
}

func parseDomainName(name string) (spiffeid.TrustDomain, error) {
	if name == "" {
		return spiffeid.TrustDomain{}, status.Error(codes.InvalidArgument, "trust_domain is empty; name one, such as example.org")
	}
	td, err := bundle.ParseTrustDomain(name)
	if err != nil {
		return td, status.Errorf(codes.InvalidArgument, "%v", err)
	}
	return td, nil
}

// domainField is a setting of a domain that a client can set.
type domainField struct {
	name string
	get  func(*ententev1.Domain) *durationpb.Duration
	set  func(s plan.Settings, value time.Duration, now time.Time) plan.Settings
}

var domainFields = []domainField{
	{"refresh_hint", (*ententev1.Domain).GetRefreshHint, func(s plan.Settings, v time.Duration, now time.Time) plan.Settings {
		if now.Equal(plan.Never) { // a new domain has no readers
			s.RefreshHint = v
			return s
		}
		return s.WithHint(v, now)
	}},
	{"x509_svid_ttl", (*ententev1.Domain).GetX509SvidTtl, func(s plan.Settings, v time.Duration, _ time.Time) plan.Settings { s.X509SVIDTTL = v; return s }},
	{"jwt_svid_ttl", (*ententev1.Domain).GetJwtSvidTtl, func(s plan.Settings, v time.Duration, _ time.Time) plan.Settings { s.JWTSVIDTTL = v; return s }},
	{"ca_ttl", (*ententev1.Domain).GetCaTtl, func(s plan.Settings, v time.Duration, _ time.Time) plan.Settings { s.CATTL = v; return s }},
}

func (f domainField) given(d *ententev1.Domain) bool { return f.get(d) != nil }

// apply takes the field over into settings.
func (f domainField) apply(s plan.Settings, from *ententev1.Domain, now time.Time) (plan.Settings, error) {
	d := f.get(from)
	if d == nil {
		return s, status.Errorf(codes.InvalidArgument, "%s is named by update_mask and has no value", f.name)
	}
	if err := d.CheckValid(); err != nil {
		return s, status.Errorf(codes.InvalidArgument, "%s is not a duration: %v", f.name, err)
	}
	return f.set(s, d.AsDuration(), now), nil
}

// domainTexts are the settings of a domain that are texts, which can be empty.
var domainTexts = map[string]func(row *statev1.Domain, asked *ententev1.Domain){
	"endpoint_host": func(row *statev1.Domain, asked *ententev1.Domain) { row.EndpointHost = asked.GetEndpointHost() },
	"oidc_issuer":   func(row *statev1.Domain, asked *ententev1.Domain) { row.OidcIssuer = asked.GetOidcIssuer() },
}

// parseMask returns the settings that a mask names.
func parseMask(paths []string) (fields []domainField, texts []func(*statev1.Domain, *ententev1.Domain), err error) {
	if len(paths) == 0 {
		return nil, nil, status.Error(codes.InvalidArgument, "update_mask is empty; name the fields to change: endpoint_host, oidc_issuer, refresh_hint, x509_svid_ttl, jwt_svid_ttl, ca_ttl")
	}
	for _, path := range paths {
		if take, ok := domainTexts[path]; ok {
			texts = append(texts, take)
			continue
		}
		i := slices.IndexFunc(domainFields, func(f domainField) bool { return f.name == path })
		if i < 0 {
			return nil, nil, status.Errorf(codes.InvalidArgument, "update_mask names %q, which cannot be changed; endpoint_host, oidc_issuer, refresh_hint, x509_svid_ttl, jwt_svid_ttl and ca_ttl can", path)
		}
		fields = append(fields, domainFields[i])
	}
	return fields, texts, nil
}

func (m *Manager) domainMessage(row *statev1.Domain, revision raftstore.Revision) *ententev1.Domain {
	return &ententev1.Domain{
		TrustDomain:  row.GetTrustDomain(),
		Home:         row.GetTrustDomain() == m.config.Home.Name(),
		EndpointHost: row.GetEndpointHost(),
		OidcIssuer:   row.GetOidcIssuer(),
		RefreshHint:  row.GetRefreshHint(),
		X509SvidTtl:  row.GetX509SvidTtl(),
		JwtSvidTtl:   row.GetJwtSvidTtl(),
		CaTtl:        row.GetCaTtl(),
		CreateTime:   row.GetCreateTime(),
		Revision:     uint64(revision),
	}
}

// view answers a read of resources: linearizable unless asked for less.
func (m *Manager) view(ctx context.Context, o *ententev1.ReadOptions) (*raftstore.View, error) {
	view, err := m.config.Store.Read(ctx, raftstore.ReadOptions{
		Linearizable: o.GetConsistency() != ententev1.Consistency_CONSISTENCY_STALE,
		MinRevision:  raftstore.Revision(o.GetMinRevision()),
	})
	if err != nil {
		return nil, raftstore.StatusError(err)
	}
	return view, nil
}
