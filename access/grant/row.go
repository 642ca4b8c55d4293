package grant

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strings"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"google.golang.org/protobuf/types/known/timestamppb"

	statev1 "github.com/ententehq/entente/api/entente/state/v1"
	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/internal/etag"
)

// key returns the grant's key in its table. The grants of a caller share the prefix callerKeyPrefix. No part of a key
// can contain the separator '|'.
func (g Grant) key() string {
	key := callerKeyPrefix(g.Caller) + RoleName(g.Role) + "|" + g.TrustDomain.Name() + "|" + g.PathPrefix
	if g.DNS != "" {
		sum := sha256.Sum256([]byte(g.DNS)) // the names are too long for a key
		key += "|" + hex.EncodeToString(sum[:])
	}
	if g.MayIssue != 0 {
		key += fmt.Sprintf("|issues=%d", g.MayIssue)
	}
	if g.Services != "" {
		sum := sha256.Sum256([]byte(g.Services))
		key += "|services=" + hex.EncodeToString(sum[:])
	}
	return key
}

// fromKey returns the caller, role, trust domain and path of the grant with a key.
func fromKey(key string) (Grant, bool) {
	parts := strings.Split(key, "|")
	if len(parts) < 4 {
		return Grant{}, false
	}
	g, err := Parse(&ententev1.Grant{
		SpiffeId: parts[0], Role: Role(ententev1.Role_value["ROLE_"+strings.ToUpper(parts[1])]), TrustDomain: parts[2],
		PathPrefix: parts[3],
	})
	return g, err == nil
}

func callerKeyPrefix(id spiffeid.ID) string { return id.String() + "|" }

func (g Grant) row(from Origin) *statev1.Grant {
	row := &statev1.Grant{
		Role:        int32(g.Role),
		SpiffeId:    g.Caller.String(),
		TrustDomain: g.TrustDomain.Name(),
		PathPrefix:  g.PathPrefix,
		CreateTime:  timestamppb.New(from.At),
		GrantedBy:   from.By,
		GrantedOn:   from.On,
		DnsNames:    g.DNS.List(),
		Services:    g.Services.List(),
	}
	for _, r := range g.MayIssue.List() {
		row.MayIssue = append(row.MayIssue, int32(r))
	}
	return row
}

func fromRow(r *statev1.Grant) (Grant, error) { return Parse(message(r, 0)) }

func message(r *statev1.Grant, revision uint64) *ententev1.Grant {
	m := &ententev1.Grant{
		Role:        Role(r.GetRole()),
		SpiffeId:    r.GetSpiffeId(),
		TrustDomain: r.GetTrustDomain(),
		PathPrefix:  r.GetPathPrefix(),
		CreateTime:  r.GetCreateTime(),
		Revision:    revision,
		DnsNames:    r.GetDnsNames(),
		Services:    r.GetServices(),
		Etag:        etag.Of(r.GetGeneration()),
	}
	for _, n := range r.GetMayIssue() {
		m.MayIssue = append(m.MayIssue, Role(n))
	}
	return m
}
