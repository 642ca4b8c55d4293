package demo

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
)

// world is all that the demo made, and has to end.
type world struct {
	dir    string
	folder *folder
	eu, us *region
	// ending holds what runs on the clusters, to be ended before they are.
	mu     sync.Mutex
	ending []func()
}

func newWorld(executable string) (*world, error) {
	if executable == "" {
		return nil, fmt.Errorf("the demo needs the path of the entente executable, to start its members with")
	}
	f, err := newFolder()
	if err != nil {
		return nil, err
	}
	w := &world{dir: f.path, folder: f}
	if err := w.build(executable); err != nil {
		w.close()
		return nil, err
	}
	return w, nil
}

func (w *world) build(executable string) error {
	var err error
	if w.eu, err = newRegion("eu", spiffeid.RequireTrustDomainFromString("eu.example.org"), w.dir, executable); err != nil {
		return err
	}
	w.us, err = newRegion("us", spiffeid.RequireTrustDomainFromString("us.example.org"), w.dir, executable)
	return err
}

func (w *world) regions() []*region {
	var list []*region
	for _, r := range []*region{w.eu, w.us} {
		if r != nil {
			list = append(list, r)
		}
	}
	return list
}

// onClose has something ended before the clusters are, the last first.
func (w *world) onClose(end func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.ending = append(w.ending, end)
}

// close ends everything: what runs on the clusters, the members, and at last their folders.
func (w *world) close() {
	w.mu.Lock()
	ending := w.ending
	w.ending = nil
	w.mu.Unlock()
	for i := len(ending) - 1; i >= 0; i-- {
		ending[i]()
	}
	var stopping sync.WaitGroup
	for _, r := range w.regions() {
		for _, m := range r.members {
			stopping.Go(m.stop)
		}
	}
	stopping.Wait()
	for _, r := range w.regions() {
		r.close()
	}
	w.folder.remove()
}

// explain prints the end of each member's log, since the logs go with the demo.
func (w *world) explain(out io.Writer) {
	for _, r := range w.regions() {
		for _, m := range r.members {
			if _, err := os.Stat(m.logFile()); err == nil {
				fmt.Fprintf(out, "%s (%s)%s\n", m.id, filepath.Base(m.logFile()), m.lastLines())
			}
		}
	}
}
