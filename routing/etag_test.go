package routing

import (
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/routing/routingtest"
)

func TestEtagOfARule(t *testing.T) {
	r, ctx := newFixture(t), routingtest.Admin(t)
	put := func(panics uint32, etag string) (*ententev1.RoutingRule, error) {
		response, err := r.PutRules(ctx, &ententev1.PutRulesRequest{Rules: []*ententev1.RoutingRule{
			{Service: "shop", PanicThreshold: proto.Uint32(panics), Etag: etag},
		}})
		if err != nil {
			return nil, err
		}
		return response.GetRules()[0], nil
	}
	_, err := put(10, "7")
	routingtest.Refused(t, err, codes.Aborted, "the rule for shop was read in generation 7 and has been deleted since")
	first, err := put(10, "0")
	require.NoError(t, err, "it must not exist")
	_, err = put(20, "0")
	routingtest.Refused(t, err, codes.Aborted, "the rule for shop exists, in generation "+first.GetEtag())
	revision := r.store.View().Revision()
	same, err := put(10, "")
	require.NoError(t, err)
	require.True(t, proto.Equal(first, same), "equal values")
	require.Equal(t, revision, r.store.View().Revision(), "equal values were written")
	second, err := put(20, first.GetEtag())
	require.NoError(t, err)
	require.NotEqual(t, first.GetEtag(), second.GetEtag())
	got, err := r.GetRule(ctx, &ententev1.GetRuleRequest{Service: "shop"})
	require.NoError(t, err)
	require.True(t, proto.Equal(got, second), "what was written is returned")
	_, err = put(30, first.GetEtag())
	routingtest.Refused(t, err, codes.Aborted, "the rule for shop was changed since it was read")
	_, err = r.DeleteRule(ctx, &ententev1.DeleteRuleRequest{Service: "shop", Etag: first.GetEtag()})
	routingtest.Refused(t, err, codes.Aborted, "the rule for shop was changed since it was read")
	_, err = r.DeleteRule(ctx, &ententev1.DeleteRuleRequest{Service: "shop", Etag: second.GetEtag()})
	require.NoError(t, err)
}
