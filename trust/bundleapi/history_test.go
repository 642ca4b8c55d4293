package bundleapi_test

import (
	"bytes"
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	statev1 "github.com/ententehq/entente/api/entente/state/v1"
	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/bundle"
	"github.com/ententehq/entente/bundle/statement"
	"github.com/ententehq/entente/trust/bundleapi"
)

// recorded is a history of the home domain: sequence 5 with a hint of a minute, 6 with two, 7 with three.
func recorded(t *testing.T) *bundleapi.History {
	h := &bundleapi.History{Revision: 9, Hosted: true}
	for i := range uint64(3) {
		b, err := bundle.New(
			home,
			bundle.Content{Sequence: new(i + 5), RefreshHint: new(time.Duration(i+1) * time.Minute)},
		)
		require.NoError(t, err)
		r, err := statement.Record(b, h.Versions, "own", time.Unix(1000, 0), statement.HostedDepth)
		require.NoError(t, err)
		h.Versions = statement.Recount(h.Versions, r)
	}
	h.Versions[1].Unstated = "no key"
	h.Content = func(v *statev1.BundleVersion) (*bundle.Bundle, error) {
		return statement.FromVersion(v, func([]byte) (*statev1.BundleKey, error) { return nil, fmt.Errorf("none") })
	}
	return h
}

func TestHistory(t *testing.T) {
	c := newCatalog()
	c.history = recorded(t)
	client, _ := start(t, c)
	all, err := client.GetBundleHistory(t.Context(), &ententev1.GetBundleHistoryRequest{})
	require.NoError(t, err)
	require.Equal(t, "eu.example.org", all.GetTrustDomain())
	var sequences []uint64
	for _, v := range all.GetVersions() {
		sequences = append(sequences, v.GetSequence())
	}
	require.Equal(t, []uint64{7, 6, 5}, sequences)
	require.Equal(t, ententev1.StatementState_STATEMENT_STATE_PENDING, all.GetVersions()[0].GetStatementState())
	require.Equal(t, ententev1.StatementState_STATEMENT_STATE_NONE, all.GetVersions()[1].GetStatementState())
	some, err := client.GetBundleHistory(t.Context(), &ententev1.GetBundleHistoryRequest{Limit: 1})
	require.NoError(t, err)
	require.Len(t, some.GetVersions(), 1)
	statements, err := client.ListBundleStatements(t.Context(), &ententev1.ListBundleStatementsRequest{})
	require.NoError(t, err)
	require.Empty(t, statements.GetStatements())

	for _, test := range []struct {
		from, to *uint64
		text     string
	}{
		{nil, nil, "refresh hint changed from 2m0s to 3m0s"},
		{nil, new(uint64(6)), "refresh hint changed from 1m0s to 2m0s"},
		{new(uint64(5)), nil, "refresh hint changed from 1m0s to 3m0s"},
		{new(uint64(7)), new(uint64(5)), "refresh hint changed from 3m0s to 1m0s"},
		{new(uint64(7)), new(uint64(7)), ""},
	} {
		diff, err := client.CompareBundleVersions(
			t.Context(),
			&ententev1.CompareBundleVersionsRequest{From: test.from, To: test.to},
		)
		require.NoError(t, err)
		var text string
		for _, d := range diff.GetDifferences() {
			text += d.GetText()
		}
		require.Equal(t, test.text, text)
	}
}

func TestHistoryRefuses(t *testing.T) {
	c := newCatalog()
	c.history = recorded(t)
	client, _ := start(t, c)
	compare := func(r *ententev1.CompareBundleVersionsRequest) func(context.Context) error {
		return func(ctx context.Context) error { _, err := client.CompareBundleVersions(ctx, r); return err }
	}
	for text, test := range map[string]struct {
		call func(context.Context) error
		code codes.Code
	}{
		"limit is -1; give 0 for all versions or how many you want": {func(ctx context.Context) error {
			_, err := client.GetBundleHistory(ctx, &ententev1.GetBundleHistoryRequest{Limit: -1})
			return err
		}, codes.InvalidArgument},
		`there is no bundle of x.test here: it is neither hosted nor federated with; "entente bundle list" shows ` +
			`those that are`: {
			compare(&ententev1.CompareBundleVersionsRequest{TrustDomain: "x.test"}), codes.NotFound},
		"sequence 4 is not in the history of eu.example.org; 'entente bundle history eu.example.org' shows those " +
			"that are": {
			compare(&ententev1.CompareBundleVersionsRequest{From: new(uint64(4))}), codes.NotFound},
		"there is nothing to compare: the history of eu.example.org holds no version before; 'entente bundle history " +
			"eu.example.org' shows what it holds": {
			compare(&ententev1.CompareBundleVersionsRequest{To: new(uint64(5))}), codes.FailedPrecondition},
	} {
		err := test.call(t.Context())
		require.Equal(t, test.code, status.Code(err))
		require.Equal(t, text, status.Convert(err).Message())
	}
	c.history.Versions[2].ContentGone = true
	err := compare(&ententev1.CompareBundleVersionsRequest{})(t.Context())
	require.Equal(t, codes.FailedPrecondition, status.Code(err))
	require.ErrorContains(t, err, "its authorities are not kept")
	c.history.Hosted = false
	c.history.Versions[1].StatementDigest = bytes.Repeat([]byte{1}, 32)
	_, err = client.ListBundleStatements(t.Context(), &ententev1.ListBundleStatementsRequest{})
	require.Equal(t, codes.FailedPrecondition, status.Code(err))
}
