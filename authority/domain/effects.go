package domain

import (
	"context"
	"fmt"
	"strings"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/ententehq/entente/access/grant"
	statev1 "github.com/ententehq/entente/api/entente/state/v1"
	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/authority/table"
	"github.com/ententehq/entente/raftstore"
)

// deletionEffects returns what the deletion of a domain would do.
func (s *Service) deletionEffects(
	ctx context.Context, td spiffeid.TrustDomain, etag string,
) (*ententev1.DeleteDomainResponse, error) {
	response := &ententev1.DeleteDomainResponse{}
	err := raftstore.Try(ctx, s.config.Store, func(tx *raftstore.Tx) error {
		own, err := s.ownEffects(tx, td)
		if err != nil {
			return err
		}
		if err := deleteDomain(tx, td, etag); err != nil {
			return err
		}
		ended, _, err := s.config.Ends(tx, td)
		response.Effects = append(own, ended...)
		return err
	})
	if err != nil {
		return nil, raftstore.StatusError(err)
	}
	view := s.config.Store.View()
	response.Revision = uint64(view.Revision())
	others, err := s.config.Depends(ctx, view, td)
	if err != nil {
		return nil, raftstore.StatusError(err)
	}
	response.Effects = append(response.Effects, others...)
	return response, nil
}

// ownEffects returns what is deleted with a domain here.
func (s *Service) ownEffects(r raftstore.Reader, td spiffeid.TrustDomain) ([]*ententev1.Effect, error) {
	domain, found, err := table.Domains.Get(r, td.Name())
	if err != nil || !found {
		return nil, err
	}
	rows, err := table.ListAuthorities(r, td.Name())
	if err != nil {
		return nil, err
	}
	var out []*ententev1.Effect
	for _, row := range rows {
		out = append(out, &ententev1.Effect{
			Kind: "authority", Subject: row.GetId(),
			Detail: fmt.Sprintf("%s, %s of member %s: stops signing", authorityKind(row), authorityState(row),
				row.GetMember()),
		})
	}
	settings := table.SettingsOf(domain.Value)
	longest := s.config.Now().Add(max(settings.X509SVIDTTL, settings.JWTSVIDTTL))
	out = append(out, &ententev1.Effect{
		Kind: "svids", Subject: "all of " + td.Name(),
		Detail: "are refused here at once; a cluster that keeps the bundle accepts them until they expire, at the " +
			"latest",
		Time: timestamppb.New(longest),
	})
	grants, err := grant.List(r)
	for _, g := range grants {
		if g.GetTrustDomain() != td.Name() {
			continue
		}
		out = append(out, &ententev1.Effect{
			Kind: "grant", Subject: g.GetSpiffeId(),
			Detail: "loses the role " + short(g.GetRole().String(), "ROLE_") + " in " + td.Name(),
		})
	}
	return out, err
}

func authorityKind(row *statev1.Authority) string {
	return short(ententev1.AuthorityKind(row.GetKind()).String(), "AUTHORITY_KIND_")
}

func authorityState(row *statev1.Authority) string {
	return short(ententev1.AuthorityState(row.GetState()).String(), "AUTHORITY_STATE_")
}

// short returns the name of an enumeration's value without its prefix.
func short(name, prefix string) string { return strings.ToLower(strings.TrimPrefix(name, prefix)) }
