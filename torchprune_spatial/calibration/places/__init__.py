"""Where in the image the cells of feature maps lie: followed from the inputs through the network.

Networks pad their inputs to a multiple, crop them, cut them into windows or tokens, shift these, and fold frames into
the batch. Beside each activation goes therefore a tensor of the same shape, which says in which pixel each element's
cell begins. What moves elements moves these numbers by the same operation, as the labels of channels are moved in
`graph.labels`; convolutions and pooling pick those of the cells that they look at, and a matrix product those of its
rows (the queries of attention) or columns.
"""
