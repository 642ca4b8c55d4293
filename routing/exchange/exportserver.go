package exchange

import (
	"context"
	"fmt"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/internal/apierror"
	"github.com/ententehq/entente/internal/etag"
	"github.com/ententehq/entente/raftstore"
	"github.com/ententehq/entente/raftstore/repeat"
	"github.com/ententehq/entente/routing/plan"
	"github.com/ententehq/entente/routing/registry"
)

// ExportServer serves the calls about exports.
type ExportServer struct {
	store      *raftstore.Store
	catalog    *registry.Catalog
	agreements Agreements
	sets       *exportedSets
	outcomes   *Outcomes
	now        func() time.Time
}

// ExportService creates an export, or replaces the one of the same name to the same domain.
func (s *ExportServer) ExportService(
	ctx context.Context, r *ententev1.ExportServiceRequest,
) (*ententev1.ServiceExport, error) {
	wanted, err := parseExport(r.GetExport())
	if err != nil {
		return nil, invalid(err)
	}
	key := exportKey(wanted.To, wanted.Name)
	if repeat.Earlier(ctx) != nil {
		export, err := s.stored(ctx, s.store.View(), key)
		return export, raftstore.StatusError(err)
	}
	others := 0
	for row, err := range exportTable.All(s.store.View(), "") {
		if err != nil {
			return nil, raftstore.StatusError(err)
		}
		if row.Key != key {
			others++
		}
	}
	if others >= maxExports {
		return nil, status.Errorf(codes.ResourceExhausted,
			"there are %d exports, which is the limit; remove some with 'entente service unexport'", others)
	}
	_, err = s.store.Update(ctx, func(tx *raftstore.Tx) error {
		agreement, err := requireAgreement(s.agreements, tx, wanted.To)
		if err != nil {
			return err
		}
		if wanted.TrustDomain != "" {
			hosted, err := s.agreements.Hosted(tx, wanted.TrustDomain)
			if err != nil {
				return err
			}
			if !hosted {
				return status.Errorf(codes.FailedPrecondition,
					"this cluster does not host %s, and exports only instances of its own domains", wanted.TrustDomain)
			}
		}
		wanted.created, wanted.relationshipCreated = s.now(), agreement.Since
		if err := exportTable.checkEtag(tx, key, r.GetEtag(), nameOfExport(wanted.Name, wanted.To)); err != nil {
			return err
		}
		row, found, err := exportTable.Get(tx, key)
		if err != nil {
			return err
		}
		wanted.generation = row.Value.GetGeneration()
		if found && row.Value.GetRelationshipCreateTime().AsTime().Equal(agreement.Since) {
			wanted.created = row.Value.GetCreateTime().AsTime()
			if proto.Equal(wanted.row(), row.Value) {
				return nil
			}
		}
		wanted.generation = raftstore.NextGeneration(tx, wanted.generation)
		return exportTable.Put(tx, key, wanted.row())
	})
	if err != nil {
		return nil, raftstore.StatusError(err)
	}
	export, err := s.stored(ctx, s.store.View(), key)
	return export, raftstore.StatusError(err)
}

// nameOfExport is for the messages of refusals.
func nameOfExport(name, to string) string { return "the export of " + name + " to " + to }

// stored returns an export as it is stored.
func (s *ExportServer) stored(
	ctx context.Context,
	view raftstore.Reader,
	key string,
) (*ententev1.ServiceExport, error) {
	e, err := exportTable.written(view, key, "export")
	if err != nil {
		return nil, err
	}
	return s.describe(view, e, s.outcomes.query(ctx))
}

// describe returns the API message of an export, with its state.
func (s *ExportServer) describe(
	r raftstore.Reader,
	e serviceExport,
	outcomes outcomesByExport,
) (*ententev1.ServiceExport, error) {
	m := &ententev1.ServiceExport{
		Service: e.Service, To: e.To, Name: e.Name, TrustDomain: e.TrustDomain, PathPrefix: e.PathPrefix,
		CreateTime: timestamppb.New(
			e.created,
		), Revision: uint64(e.revision), State: ententev1.ExportState_EXPORT_STATE_OFFERED, Etag: etag.Of(e.generation),
	}
	for _, locality := range e.Localities {
		m.Localities = append(m.Localities, locality.String())
	}
	var err error
	if m.Instances, err = s.countCovered(r, e); err != nil {
		return nil, err
	}
	agreement, found, err := s.agreements.With(r, e.To)
	switch {
	case err != nil:
		return nil, err
	case !found || !e.counts(agreement):
		m.State, m.Detail = ententev1.ExportState_EXPORT_STATE_ENDED, "the relationship that it was "+
			"created under has ended"
	case agreement.inactiveReason(e.To) != "":
		m.State, m.Detail = ententev1.ExportState_EXPORT_STATE_INACTIVE, agreement.inactiveReason(e.To)
	case m.Instances == 0:
		m.Detail = "it covers no instance of a hosted domain"
	}
	if m.GetState() == ententev1.ExportState_EXPORT_STATE_OFFERED {
		err = s.applyOutcomes(r, e, outcomes[exportName{agreement.Peer, e.Name}], m)
	}
	return m, err
}

// countCovered counts the instances that an export covers.
func (s *ExportServer) countCovered(r raftstore.Reader, e serviceExport) (n uint32, err error) {
	present, err := s.catalog.Service(r, e.Service)
	if err != nil {
		return 0, err
	}
	hosted := make([]bool, len(present.Domains))
	for n, td := range present.Domains {
		if hosted[n], err = s.agreements.Hosted(r, td.Name()); err != nil {
			return 0, err
		}
	}
	for i, instance := range present.Instances {
		if hosted[present.DomainOf[i]] && e.covers(instance) {
			n++
		}
	}
	return n, nil
}

// applyOutcomes sets the state of an export from the outcomes at its peer: the worst of those for the trust domains of
// the instances.
func (s *ExportServer) applyOutcomes(
	r raftstore.Reader,
	e serviceExport,
	outcomes []setOutcome,
	m *ententev1.ServiceExport,
) error {
	for _, o := range outcomes {
		present, _, err := s.sets.get(r, []string{e.To}, o.setKey)
		if err != nil {
			return err
		}
		switch {
		case present.notExported || present.digest != o.digest:
			continue // the set has changed since, or the outcome is that of another export
		case o.refusal != "":
			m.State, m.Refusal = ententev1.ExportState_EXPORT_STATE_REFUSED, o.refusal
			m.Detail = fmt.Sprintf(
				"the cluster of %s refuses it (%s) and keeps what it had; for details run 'entente "+
					"service imports' there",
				e.To,
				o.refusal,
			)
		case m.GetState() == ententev1.ExportState_EXPORT_STATE_OFFERED:
			m.State = ententev1.ExportState_EXPORT_STATE_ACKNOWLEDGED
		}
		if at := timestamppb.New(o.at); m.AnswerTime == nil || o.refusal != "" {
			m.AnswerTime = at
		}
	}
	return nil
}

// ListServiceExports returns all exports, by domain and name.
func (s *ExportServer) ListServiceExports(
	ctx context.Context, r *ententev1.ListServiceExportsRequest,
) (*ententev1.ListServiceExportsResponse, error) {
	view, err := registry.Read(ctx, s.store, r.GetRead(), true)
	if err != nil {
		return nil, err
	}
	list, err := exportTable.list(view)
	if err != nil {
		return nil, raftstore.StatusError(err)
	}
	outcomes := s.outcomes.query(ctx)
	all, err := describeAll(list, func(e serviceExport) (*ententev1.ServiceExport, error) {
		return s.describe(view, e, outcomes)
	})
	if err != nil {
		return nil, err
	}
	return &ententev1.ListServiceExportsResponse{Revision: uint64(view.Revision()), Exports: all}, nil
}

// UnexportService removes an export.
func (s *ExportServer) UnexportService(
	ctx context.Context, r *ententev1.UnexportServiceRequest,
) (*ententev1.UnexportServiceResponse, error) {
	if err := plan.CheckServiceName(r.GetName()); err != nil {
		return nil, invalid(apierror.InField("name", err))
	}
	to, err := foreignDomain(r.GetTo())
	if err != nil {
		return nil, invalid(apierror.InField("to", err))
	}
	of := removal{etag: r.GetEtag(), name: nameOfExport(r.GetName(), to), key: exportKey(to, r.GetName())}
	of.missing = status.Errorf(codes.NotFound,
		"nothing is exported to %s as %s; 'entente service exports' lists all exports", to, r.GetName())
	if r.GetDryRun() {
		view := s.store.View()
		e, err := exportTable.tryRemove(ctx, s.store, of)
		if err != nil {
			return nil, err
		}
		n, err := s.countCovered(view, e)
		if err != nil {
			return nil, raftstore.StatusError(err)
		}
		return &ententev1.UnexportServiceResponse{Revision: uint64(view.Revision()), Effects: []*ententev1.Effect{{
			Kind: "instances", Subject: fmt.Sprintf("%d of %s", n, e.Service),
			Detail: fmt.Sprintf("are no longer offered to %s as %s: it removes them when the stream delivers that, "+
				"or after its import_ttl without a stream", e.To, e.Name),
		}}}, nil
	}
	revision, err := exportTable.remove(ctx, s.store, of)
	if err != nil {
		return nil, err
	}
	return &ententev1.UnexportServiceResponse{Revision: uint64(revision)}, nil
}
