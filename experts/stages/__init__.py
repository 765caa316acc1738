"""The stages of training, one module each: what it learns from, what it is measured by, and how it is trained.

    pretrain, sft  text        documents and answers to imitate        loss on text held out
    dpo, kto       preference  answers that were compared or rated     preference accuracy
    reward         reward      answers that were compared              preference accuracy of the reward model
    rl             reinforce   prompts, and rewards for what is said   mean reward, and KL to the start

`kinds` knows them by name; `moehub.experts.training` does what is the same for all of them.
"""
