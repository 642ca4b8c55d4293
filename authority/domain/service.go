// Package domain serves entente.v1.DomainService: the hosted trust domains and their settings.
//
// A hosted domain is never foreign, its settings leave enough time for a new authority to become known before it signs,
// and each domain has its own endpoint host and issuer. The home domain cannot be deleted. The sequence of a deleted
// domain is kept, so that the bundle of one that is created again continues it. A domain with deletion protection is
// deleted only after that was taken away.
package domain

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/ententehq/entente/access/grant"
	statev1 "github.com/ententehq/entente/api/entente/state/v1"
	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/authority/internal/request"
	"github.com/ententehq/entente/authority/plan"
	"github.com/ententehq/entente/authority/publish"
	"github.com/ententehq/entente/authority/table"
	"github.com/ententehq/entente/bundle"
	"github.com/ententehq/entente/bundle/endpoint"
	"github.com/ententehq/entente/internal/apierror"
	"github.com/ententehq/entente/internal/dnsname"
	"github.com/ententehq/entente/internal/etag"
	"github.com/ententehq/entente/raftstore"
	"github.com/ententehq/entente/raftstore/repeat"
)

// maxDomains bounds the hosted trust domains: each costs every member two keys and their renewal.
const maxDomains = 256

// Config configures a [Service]. All fields but RootTTL are required.
type Config struct {
	Store *raftstore.Store
	// Home is the home trust domain.
	Home spiffeid.TrustDomain
	// Defaults are the settings of a domain that is created without its own.
	Defaults plan.Settings
	// MinRefresh is the shortest refresh hint that a domain can have.
	MinRefresh time.Duration
	// RootTTL is the lifetime of the roots above the authorities. It is zero if the upstream decides on them.
	RootTTL time.Duration
	// IsForeign reports, inside a transaction, whether a trust domain is foreign.
	IsForeign func(r raftstore.Reader, td string) (bool, error)
	Publisher *publish.Publisher
	// Ends is part of the transaction that deletes a domain, possibly several times: it ends what other rooms keep of
	// it. It returns the effects of that, and what to do once the transaction has been committed. If nil, nothing ends.
	Ends func(tx *raftstore.Tx, td spiffeid.TrustDomain) (effects []*ententev1.Effect, done func(), err error)
	// Depends returns what other rooms lose with a domain, for a dry run. If nil, nothing.
	Depends func(ctx context.Context, r raftstore.Reader, td spiffeid.TrustDomain) ([]*ententev1.Effect, error)
	Now     func() time.Time
}

// Service serves entente.v1.DomainService. Access is checked before it is called.
type Service struct {
	ententev1.UnimplementedDomainServiceServer
	config Config
}

// NewService returns the service.
func NewService(config Config) *Service {
	if config.Ends == nil {
		config.Ends = func(*raftstore.Tx, spiffeid.TrustDomain) ([]*ententev1.Effect, func(), error) {
			return nil, func() {}, nil
		}
	}
	if config.Depends == nil {
		config.Depends = func(context.Context, raftstore.Reader, spiffeid.TrustDomain) ([]*ententev1.Effect, error) {
			return nil, nil
		}
	}
	return &Service{config: config}
}

// CreateDomain makes the cluster the authority for one more trust domain. Its first authorities follow at once.
func (s *Service) CreateDomain(ctx context.Context, r *ententev1.CreateDomainRequest) (*ententev1.Domain, error) {
	wanted := r.GetDomain()
	td, err := request.ParseDomain(wanted.GetTrustDomain())
	if err != nil {
		return nil, err
	}
	if repeat.Earlier(ctx) != nil {
		return s.GetDomain(ctx, &ententev1.GetDomainRequest{TrustDomain: td.Name()})
	}
	if _, err := bundle.ParseHostedTrustDomain(td.Name()); err != nil {
		return nil, apierror.Invalid(apierror.InField("trust_domain", err))
	}
	settings := s.config.Defaults
	for _, f := range domainFields {
		if f.given(wanted) {
			if settings, err = f.apply(settings, wanted, plan.Never); err != nil {
				return nil, err
			}
		}
	}
	if err := s.check(settings, wanted.GetEndpointHost(), wanted.GetOidcIssuer()); err != nil {
		return nil, err
	}
	if err := s.checkConstraints(wanted.GetNameConstraints()); err != nil {
		return nil, err
	}
	var row *statev1.Domain
	revision, err := s.config.Store.Update(ctx, func(tx *raftstore.Tx) error {
		if err := s.creatable(tx, wanted); err != nil {
			return err
		}
		row = &statev1.Domain{
			Generation:  raftstore.NextGeneration(tx, 0),
			TrustDomain: td.Name(), EndpointHost: wanted.GetEndpointHost(), OidcIssuer: wanted.GetOidcIssuer(),
			CreateTime: timestamppb.New(s.config.Now()), NameConstraints: wanted.GetNameConstraints(),
			DeletionProtection: wanted.GetDeletionProtection(),
		}
		table.SetSettings(row, settings)
		return table.Domains.Put(tx, td.Name(), row)
	})
	if err != nil {
		return nil, raftstore.StatusError(err)
	}
	return s.message(row, revision), nil
}

// creatable refuses a domain that exists, that is foreign, or that exceeds the limit.
func (s *Service) creatable(tx *raftstore.Tx, wanted *ententev1.Domain) error {
	td := wanted.GetTrustDomain()
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
		return status.Errorf(
			codes.ResourceExhausted,
			"this cluster hosts %d trust domains, which is the limit; delete one, or set up another cluster",
			len(rows),
		)
	}
	foreign, err := s.config.IsForeign(tx, td)
	if err != nil {
		return fmt.Errorf("look for a relationship with %s: %w", td, err)
	}
	if foreign {
		return status.Errorf(
			codes.FailedPrecondition,
			"there is a relationship with %s, and a hosted domain is never foreign; delete the relationship first",
			td,
		)
	}
	return addressesAreFree(tx, td, wanted.GetEndpointHost(), wanted.GetOidcIssuer())
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
			return status.Errorf(
				codes.AlreadyExists,
				"endpoint_host %s is that of %s; each domain needs its own",
				host,
				row.Key,
			)
		}
		if issuer != "" && sameIssuer(row.Value.GetOidcIssuer(), issuer) {
			return status.Errorf(
				codes.AlreadyExists,
				"oidc_issuer %s is that of %s, whatever the port; each domain needs its own",
				issuer,
				row.Key,
			)
		}
	}
	return nil
}

// check verifies settings against the rules, and with self-signed roots against the lifetime of those.
func (s *Service) check(settings plan.Settings, endpointHost, issuer string) error {
	if err := settings.Check(s.config.MinRefresh); err != nil {
		return status.Error(codes.InvalidArgument, err.Error())
	}
	if root := s.config.RootTTL; root > 0 && root < plan.RootLives*settings.CATTL {
		return status.Errorf(
			codes.InvalidArgument,
			"ca_ttl is %v; it can be a quarter of root_ttl (%v) at most",
			settings.CATTL,
			root,
		)
	}
	if endpointHost != "" {
		if err := dnsname.Check(endpointHost); err != nil {
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

// sameIssuer reports whether two issuers are served at the same host.
func sameIssuer(a, b string) bool {
	one, err := endpoint.ParseIssuer(a)
	if err != nil {
		return false // the first one is empty
	}
	other, err := endpoint.ParseIssuer(b)
	return err == nil && one.SamePlace(other)
}

// ListDomains lists the hosted trust domains.
func (s *Service) ListDomains(
	ctx context.Context, r *ententev1.ListDomainsRequest,
) (*ententev1.ListDomainsResponse, error) {
	view, err := request.View(ctx, s.config.Store, r.GetRead())
	if err != nil {
		return nil, err
	}
	response := &ententev1.ListDomainsResponse{Revision: uint64(view.Revision())}
	for row, err := range table.Domains.All(view, "") {
		if err != nil {
			return nil, raftstore.StatusError(err)
		}
		response.Domains = append(response.Domains, s.message(row.Value, row.Revision))
	}
	return response, nil
}

// GetDomain returns one hosted trust domain.
func (s *Service) GetDomain(ctx context.Context, r *ententev1.GetDomainRequest) (*ententev1.Domain, error) {
	td, err := request.ParseDomain(r.GetTrustDomain())
	if err != nil {
		return nil, err
	}
	view, err := request.View(ctx, s.config.Store, r.GetRead())
	if err != nil {
		return nil, err
	}
	row, ok, err := table.Domains.Get(view, td.Name())
	if err != nil {
		return nil, raftstore.StatusError(err)
	}
	if !ok {
		return nil, request.NotHosted(td.Name())
	}
	return s.message(row.Value, row.Revision), nil
}

// UpdateDomain changes the fields that the mask names.
func (s *Service) UpdateDomain(ctx context.Context, r *ententev1.UpdateDomainRequest) (*ententev1.Domain, error) {
	wanted := r.GetDomain()
	td, err := request.ParseDomain(wanted.GetTrustDomain())
	if err != nil {
		return nil, err
	}
	fields, values, err := parseMask(r.GetUpdateMask().GetPaths())
	if err != nil {
		return nil, err
	}
	if td == s.config.Home && !wanted.GetDeletionProtection() &&
		slices.Contains(r.GetUpdateMask().GetPaths(), "deletion_protection") {
		return nil, status.Errorf(codes.InvalidArgument,
			"deletion_protection of %s is always set: it is the home domain, which cannot be deleted", td)
	}
	var row *statev1.Domain
	var unchanged raftstore.Revision
	revision, err := s.config.Store.Update(ctx, func(tx *raftstore.Tx) error {
		stored, ok, err := table.Domains.Get(tx, td.Name())
		if err != nil {
			return err
		}
		if !ok {
			return request.NotHosted(td.Name())
		}
		if err := checkEtag(r.GetEtag(), stored.Value); err != nil {
			return err
		}
		row = stored.Value
		was := proto.CloneOf(row)
		table.SetSettings(was, table.SettingsOf(was)) // as this version writes them
		now, settings := s.config.Now(), table.SettingsOf(row)
		for _, f := range fields {
			if settings, err = f.apply(settings, wanted, now); err != nil {
				return err
			}
		}
		for _, set := range values {
			set(row, wanted)
		}
		if err := s.check(settings, row.GetEndpointHost(), row.GetOidcIssuer()); err != nil {
			return err
		}
		if err := s.checkConstraints(row.GetNameConstraints()); err != nil {
			return err
		}
		if err := addressesAreFree(tx, td.Name(), row.GetEndpointHost(), row.GetOidcIssuer()); err != nil {
			return err
		}
		table.SetSettings(row, settings)
		if proto.Equal(row, was) {
			unchanged = stored.Revision
			return nil
		}
		unchanged = 0
		row.Generation = raftstore.NextGeneration(tx, was.GetGeneration())
		if err := table.Domains.Put(tx, td.Name(), row); err != nil {
			return err
		}
		if err := table.ExtendLongestSVID(tx, td.Name(), settings); err != nil {
			return err
		}
		_, err = s.config.Publisher.Publish(tx, row, now)
		return err
	})
	if err != nil {
		return nil, raftstore.StatusError(err)
	}
	return s.message(row, cmp.Or(unchanged, revision)), nil
}

// DeleteDomain deletes a hosted trust domain with its authorities, its bundle and history, its grants and the
// agreements about it. Only its last sequence is kept.
func (s *Service) DeleteDomain(
	ctx context.Context, r *ententev1.DeleteDomainRequest,
) (*ententev1.DeleteDomainResponse, error) {
	td, err := request.ParseDomain(r.GetTrustDomain())
	if err != nil {
		return nil, err
	}
	if td == s.config.Home {
		return nil, apierror.New(
			codes.FailedPrecondition, apierror.DeletionProtected,
			"%s is the home domain, which names the members; it cannot be deleted",
			td,
		)
	}
	if r.GetDryRun() {
		return s.deletionEffects(ctx, td, r.GetEtag())
	}
	done := func() {}
	revision, err := s.config.Store.Update(ctx, func(tx *raftstore.Tx) (err error) {
		if err := deleteDomain(tx, td, r.GetEtag()); err != nil {
			return err
		}
		_, done, err = s.config.Ends(tx, td)
		return err
	})
	if err != nil {
		return nil, raftstore.StatusError(err)
	}
	done()
	return &ententev1.DeleteDomainResponse{Revision: uint64(revision)}, nil
}

// deleteDomain deletes the rows of a domain.
func deleteDomain(tx *raftstore.Tx, td spiffeid.TrustDomain, etag string) error {
	name := td.Name()
	stored, hosted, err := table.Domains.Get(tx, name)
	if err != nil {
		return err
	} else if !hosted {
		return request.NotHosted(name)
	}
	if err := checkEtag(etag, stored.Value); err != nil {
		return err
	}
	if stored.Value.GetDeletionProtection() {
		return apierror.New(codes.FailedPrecondition, apierror.DeletionProtected,
			"the trust domain %s is protected from deletion; take that away first: entente domain update %s "+
				"--deletion-protection=false", name, name)
	}
	sequence, err := publish.LastSequence(tx, name)
	if err != nil {
		return err
	}
	if sequence > 0 {
		past := &statev1.PastSequence{TrustDomain: name, Sequence: sequence}
		if err := table.PastSequences.Put(tx, name, past); err != nil {
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
	for _, remove := range []func(*raftstore.Tx, string) error{
		publish.DeleteHistory, table.DeleteUpstreamAnchors, table.HostedBundles.Delete, table.Rotations.Delete,
		table.Domains.Delete,
	} {
		if err := remove(tx, name); err != nil {
			return err
		}
	}
	return grant.RevokeDomain(tx, td)
}

// checkConstraints refuses name constraints on roots that this cluster does not make.
func (s *Service) checkConstraints(wanted bool) error {
	if wanted && s.config.RootTTL == 0 {
		return status.Error(codes.InvalidArgument,
			"name_constraints: the upstream makes the roots; add the constraint to a root there")
	}
	return nil
}

// message returns a domain as the API shows it.
func (s *Service) message(row *statev1.Domain, revision raftstore.Revision) *ententev1.Domain {
	return &ententev1.Domain{
		TrustDomain:  row.GetTrustDomain(),
		Home:         row.GetTrustDomain() == s.config.Home.Name(),
		EndpointHost: row.GetEndpointHost(),
		OidcIssuer:   row.GetOidcIssuer(),
		RefreshHint:  row.GetRefreshHint(),
		X509SvidTtl:  row.GetX509SvidTtl(),
		JwtSvidTtl:   row.GetJwtSvidTtl(),
		CaTtl:        row.GetCaTtl(),
		CreateTime:   row.GetCreateTime(),
		Revision:     uint64(revision),

		NameConstraints: row.GetNameConstraints(),
		PeerMinRefresh:  row.GetPeerMinRefresh(),

		DeletionProtection: row.GetDeletionProtection() || row.GetTrustDomain() == s.config.Home.Name(),

		Etag: etag.Of(row.GetGeneration()),
	}
}

func checkEtag(requested string, stored *statev1.Domain) error {
	return etag.Check(requested, "the trust domain "+stored.GetTrustDomain(), etag.Of(stored.GetGeneration()))
}
