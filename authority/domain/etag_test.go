package domain

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	ententev1 "github.com/ententehq/entente/api/entente/v1"
)

// TestEtag: an etag moves with a change of values, and only then. A call with an earlier one changes nothing.
func TestEtag(t *testing.T) {
	s := newService(t)
	create(t, s, &ententev1.Domain{TrustDomain: shop})
	get := func() *ententev1.Domain {
		d, err := s.GetDomain(t.Context(), &ententev1.GetDomainRequest{TrustDomain: shop})
		require.NoError(t, err)
		return d
	}
	set := func(hint time.Duration, etag string) (*ententev1.Domain, error) {
		return s.UpdateDomain(t.Context(), &ententev1.UpdateDomainRequest{
			Domain:     &ententev1.Domain{TrustDomain: shop, RefreshHint: durationpb.New(hint)},
			UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"refresh_hint"}}, Etag: etag,
		})
	}
	first := get()
	require.NotEmpty(t, first.GetEtag())
	changed, err := set(time.Minute, first.GetEtag())
	require.NoError(t, err)
	require.NotEqual(t, first.GetEtag(), changed.GetEtag())
	require.Equal(t, get().GetEtag(), changed.GetEtag())

	revision := s.config.Store.View().Revision()
	for _, etag := range []string{changed.GetEtag(), ""} {
		same, err := set(time.Minute, etag)
		require.NoError(t, err)
		require.Equal(t, changed.GetEtag(), same.GetEtag(), "equal values")
		require.Equal(t, changed.GetRevision(), same.GetRevision())
	}
	require.Equal(t, revision, s.config.Store.View().Revision(), "equal values were written")

	stale := "the trust domain shop.example.org was changed since it was read: the request is for generation " +
		first.GetEtag() + ", and it is in generation " + changed.GetEtag() + "; read it again, and repeat the change " +
		"with its new etag"
	_, err = set(time.Hour, first.GetEtag())
	refused(t, err, codes.Aborted, stale)
	for _, dry := range []bool{true, false} {
		_, err = s.DeleteDomain(t.Context(), &ententev1.DeleteDomainRequest{
			TrustDomain: shop, Etag: first.GetEtag(), DryRun: dry,
		})
		refused(t, err, codes.Aborted, stale)
	}
	require.Equal(t, time.Minute, get().GetRefreshHint().AsDuration())
	last, err := set(time.Hour, "")
	require.NoError(t, err, "without an etag the last write wins")
	_, err = s.DeleteDomain(t.Context(), &ententev1.DeleteDomainRequest{TrustDomain: shop, Etag: last.GetEtag()})
	require.NoError(t, err)
	create(t, s, &ententev1.Domain{TrustDomain: shop})
	require.NotContains(t, []string{first.GetEtag(), changed.GetEtag(), last.GetEtag()}, get().GetEtag(),
		"a domain that is made again is another one")
}
