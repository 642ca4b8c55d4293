package client

import (
	"context"
	"sync"
)

// tasks are the goroutines of a source. The zero value has none.
type tasks struct {
	cancel  context.CancelFunc
	running sync.WaitGroup
	failed  chan error
}

// start runs functions until stop. They get the values of ctx, but do not end with it.
func (t *tasks) start(ctx context.Context, run ...func(context.Context) error) {
	ctx, t.cancel = context.WithCancel(context.WithoutCancel(ctx))
	t.failed = make(chan error, len(run))
	for _, f := range run {
		t.running.Go(func() {
			if err := f(ctx); ctx.Err() == nil {
				t.failed <- err
			}
		})
	}
}

// wait returns nil when all channels are closed. It returns an error when ctx ends, or a task ends by itself.
func (t *tasks) wait(ctx context.Context, ready ...<-chan struct{}) error {
	for _, r := range ready {
		select {
		case <-r:
		case err := <-t.failed:
			return err
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	return nil
}

// stop ends the tasks and waits for them.
func (t *tasks) stop() error {
	t.cancel()
	t.running.Wait()
	return nil
}
