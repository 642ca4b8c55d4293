package demo

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
)

// world is everything that the demo starts and has to end.
type world struct {
	dir    string
	folder *folder
	eu, us *region
	// ending are functions that end what runs on the clusters, called before the clusters end.
	mu     sync.Mutex
	ending []func()
}

func newWorld(executable string) (*world, error) {
	if executable == "" {
		return nil, fmt.Errorf("the demo needs the path of the entente executable, which it starts as members")
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
	eu := spiffeid.RequireTrustDomainFromString("eu.example.org")
	us := spiffeid.RequireTrustDomainFromString("us.example.org")
	if w.eu, err = newRegion("eu", eu, w.dir, executable); err != nil {
		return err
	}
	w.us, err = newRegion("us", us, w.dir, executable)
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

// onClose adds a function that is called before the clusters end, the last one first.
func (w *world) onClose(end func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.ending = append(w.ending, end)
}

// close ends what runs on the clusters, then the members, and removes their folders.
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

// explain prints the end of each member's log, since the logs are removed with the demo.
func (w *world) explain(out io.Writer) {
	for _, r := range w.regions() {
		for _, m := range r.members {
			if _, err := os.Stat(m.logFile()); err == nil {
				fmt.Fprintf(out, "%s (%s)%s\n", m.id, filepath.Base(m.logFile()), m.lastLines())
			}
		}
	}
}
