package bundleapi

import (
	"context"
	"encoding/hex"
	"errors"
	"slices"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	statev1 "github.com/ententehq/entente/api/entente/state/v1"
	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/bundle"
	"github.com/ententehq/entente/bundle/statement"
	"github.com/ententehq/entente/internal/apierror"
	"github.com/ententehq/entente/raftstore"
)

// History has the versions of a bundle that are kept.
type History struct {
	Revision uint64
	Hosted   bool
	// Versions are oldest first.
	Versions []*statev1.BundleVersion
	// Content rebuilds the bundle of one of them.
	Content func(*statev1.BundleVersion) (*bundle.Bundle, error)
}

// GetBundleHistory lists the versions of a bundle.
func (s *Service) GetBundleHistory(
	ctx context.Context,
	r *ententev1.GetBundleHistoryRequest,
) (*ententev1.GetBundleHistoryResponse, error) {
	if r.GetLimit() < 0 {
		return nil, status.Errorf(
			codes.InvalidArgument,
			"limit is %d; give 0 for all versions or how many you want",
			r.GetLimit(),
		)
	}
	td, h, err := s.history(ctx, r.GetTrustDomain(), r.GetRead())
	if err != nil {
		return nil, err
	}
	answer := &ententev1.GetBundleHistoryResponse{TrustDomain: td.Name(), Hosted: h.Hosted, Revision: h.Revision}
	for _, v := range slices.Backward(h.Versions) {
		if limit := int(r.GetLimit()); limit > 0 && len(answer.Versions) == limit {
			break
		}
		answer.Versions = append(answer.Versions, h.message(v))
	}
	return answer, nil
}

// CompareBundleVersions returns the differences between two versions.
func (s *Service) CompareBundleVersions(
	ctx context.Context,
	r *ententev1.CompareBundleVersionsRequest,
) (*ententev1.CompareBundleVersionsResponse, error) {
	td, h, err := s.history(ctx, r.GetTrustDomain(), r.GetRead())
	if err != nil {
		return nil, err
	}
	to := len(h.Versions) - 1
	if r.To != nil {
		if to, err = h.find(td, r.GetTo()); err != nil {
			return nil, err
		}
	}
	from := to - 1
	if r.From != nil {
		if from, err = h.find(td, r.GetFrom()); err != nil {
			return nil, err
		}
	}
	if to < 0 || from < 0 {
		return nil, status.Errorf(
			codes.FailedPrecondition,
			"there is nothing to compare: the history of %s holds no version before; 'entente bundle history %s' "+
				"shows what it holds",
			td,
			td,
		)
	}
	answer := &ententev1.CompareBundleVersionsResponse{
		TrustDomain: td.Name(),
		Revision:    h.Revision,
		From:        h.message(h.Versions[from]),
		To:          h.message(h.Versions[to]),
	}
	was, err := h.Content(h.Versions[from])
	if err == nil {
		var is *bundle.Bundle
		if is, err = h.Content(h.Versions[to]); err == nil {
			for _, d := range bundle.Differences(was, is) {
				answer.Differences = append(
					answer.Differences,
					&ententev1.BundleDifference{Kind: string(d.Kind), Use: d.Use, KeyId: d.KeyID, Text: d.Text},
				)
			}
			return answer, nil
		}
	}
	if errors.Is(err, statement.ErrContentGone) {
		return nil, status.Errorf(codes.FailedPrecondition, "%v", err)
	}
	return nil, raftstore.StatusError(err)
}

// ListBundleStatements returns statements in the form of the bundle endpoint.
func (s *Service) ListBundleStatements(
	ctx context.Context,
	r *ententev1.ListBundleStatementsRequest,
) (*ententev1.ListBundleStatementsResponse, error) {
	td, h, err := s.history(ctx, r.GetTrustDomain(), r.GetRead())
	if err != nil {
		return nil, err
	}
	if !h.Hosted {
		return nil, status.Errorf(
			codes.FailedPrecondition,
			"%s is not hosted here; its own cluster has its statements",
			td,
		)
	}
	answer := &ententev1.ListBundleStatementsResponse{TrustDomain: td.Name(), Revision: h.Revision}
	size := 0
	for _, v := range h.Versions {
		if v.GetStatement() == "" || v.GetSequence() < r.GetFrom() {
			continue
		}
		if size += len(v.GetStatement()); size > statement.MaxListBytes {
			break
		}
		answer.Statements = append(answer.Statements, v.GetStatement())
	}
	return answer, nil
}

func (s *Service) history(
	ctx context.Context,
	name string,
	read *ententev1.ReadOptions,
) (td spiffeid.TrustDomain, h History, err error) {
	td = s.config.Catalog.Home()
	if name != "" {
		if td, err = bundle.ParseTrustDomain(name); err != nil {
			return td, h, apierror.Invalid(apierror.InField("trust_domain", err))
		}
	}
	options, err := readOptions(read)
	if err != nil {
		return td, h, err
	}
	h, err = s.config.Catalog.History(ctx, td, options)
	if errors.Is(err, ErrNotFound) {
		return td, h, status.Errorf(
			codes.NotFound,
			"there is no bundle of %s here: it is neither hosted nor federated with; \"entente bundle list\" shows "+
				"those that are",
			td,
		)
	}
	if err != nil {
		return td, h, raftstore.StatusError(err)
	}
	return td, h, nil
}

// find returns the index of the newest version with a sequence: after a reset a sequence can occur twice.
func (h History) find(td spiffeid.TrustDomain, sequence uint64) (int, error) {
	for i, v := range slices.Backward(h.Versions) {
		if v.Sequence != nil && v.GetSequence() == sequence {
			return i, nil
		}
	}
	return 0, status.Errorf(
		codes.NotFound,
		"sequence %d is not in the history of %s; 'entente bundle history %s' shows those that are",
		sequence,
		td,
		td,
	)
}

// message returns a version in the form of the API.
func (h History) message(v *statev1.BundleVersion) *ententev1.BundleVersion {
	m := &ententev1.BundleVersion{
		Number: v.GetNumber(), Sequence: v.Sequence, Digest: hex.EncodeToString(v.GetDigest()), Time: v.GetTime(),
		Source:    v.GetSource(),
		Statement: v.GetStatement(), StatementDigest: hex.EncodeToString(v.GetStatementDigest()),
		ContentGone: v.GetContentGone(),
	}
	if v.RefreshHint != nil {
		m.RefreshHint = durationpb.New(time.Duration(v.GetRefreshHint()) * time.Second)
	}
	if b, err := h.Content(v); err == nil {
		m.X509Authorities = int32(len(b.X509Authorities())) //nolint:gosec // at most bundle.MaxKeys
		m.JwtAuthorities = int32(len(b.JWTAuthorities()))   //nolint:gosec // at most bundle.MaxKeys
	}
	switch {
	case v.GetStatement() != "":
		m.StatementState = ententev1.StatementState_STATEMENT_STATE_CONTINUES
		if s, err := statement.Parse(v.GetStatement()); err == nil {
			digest := s.Digest()
			m.StatementDigest = hex.EncodeToString(digest[:])
			if s.Starts() {
				m.StatementState, m.StatementDetail = ententev1.StatementState_STATEMENT_STATE_STARTS, s.Claims().Start
			}
		}
	case v.GetUnstated() != "":
		m.StatementState, m.StatementDetail = ententev1.StatementState_STATEMENT_STATE_NONE, v.GetUnstated()
	case h.Hosted:
		m.StatementState = ententev1.StatementState_STATEMENT_STATE_PENDING
	case len(v.GetStatementDigest()) > 0:
		m.StatementState = ententev1.StatementState_STATEMENT_STATE_CHECKED
	}
	return m
}
