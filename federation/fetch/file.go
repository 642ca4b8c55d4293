package fetch

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"github.com/ententehq/entente/bundle"
	"github.com/ententehq/entente/federation/intake"
	"github.com/ententehq/entente/federation/relationship"
)

// readAndKeep reads the file of a relationship, decides, and stores what is new.
func (p *Poller) readAndKeep(ctx context.Context, name string, b intake.Basis) (string, error) {
	b.Source = b.Rel.Source()
	document, err := p.readFile(b.Rel)
	var result string
	if err == nil {
		var next *bundle.Bundle
		var ignored []bundle.Ignored
		if next, ignored, err = bundle.ParseFile(b.Rel.TrustDomain, document); err == nil {
			result, _, err = p.keep(ctx, name, b, next, ignored)
		}
	}
	if err == nil {
		return result, nil
	}
	reason := relationship.ReasonOf(err)
	if relationship.IsDecision(reason) && ctx.Err() == nil {
		p.config.Intake.Record(intake.ActionRefuse, name, reason, relationship.Clip(err.Error()), 0)
	}
	return "", fmt.Errorf("read the bundle of %s: %w", name, err)
}

// readFile reads the file of a relationship below the folder that this member's configuration names. Links that lead
// out of the folder, and what is no ordinary file, are refused: whoever creates a relationship chooses the name.
func (p *Poller) readFile(r *relationship.Relationship) ([]byte, error) {
	if p.config.Folder == "" {
		return nil, fmt.Errorf(
			"%w: this member has no federation.bundle_dir; configure the folder on every member, since any of them "+
				"may read the file", relationship.ErrFile,
		)
	}
	most := int64(bundle.MaxDocumentBytes)
	if r.Limits.DocumentBytes > 0 {
		most = min(most, r.Limits.DocumentBytes)
	}
	document, err := readBelow(p.config.Folder, r.File, most)
	if err != nil {
		var at *fs.PathError
		if errors.As(err, &at) {
			err = at.Err
		}
		return nil, fmt.Errorf(
			"%w: %s in %s: %w", relationship.ErrFile, relationship.Quote(r.File), p.config.Folder, err,
		)
	}
	if int64(len(document)) > most {
		return nil, fmt.Errorf(
			"%w: file %s has more than %d bytes", bundle.ErrTooLarge, relationship.Quote(r.File), most,
		)
	}
	return document, nil
}

// readBelow reads a file below a folder, and at most one byte more than most.
func readBelow(folder, name string, most int64) ([]byte, error) {
	root, err := os.OpenRoot(folder) // each time: the folder can be replaced
	if err != nil {
		return nil, err
	}
	defer func() { _ = root.Close() }()
	info, err := root.Stat(name)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, errors.New("it is not an ordinary file")
	}
	f, err := root.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, most+1))
}
