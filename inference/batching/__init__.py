"""Jobs, queues, fair shares and the choice of batches."""
